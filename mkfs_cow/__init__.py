"""``mkfs.cow``: makes a btrfs, empty or filled from a directory or a tar, reproducibly."""
