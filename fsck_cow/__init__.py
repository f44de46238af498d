"""``fsck.cow``: checks an unmounted btrfs completely, without writing."""
