"""``--data``: every copy of all checksummed data and of every tree block, read where it stands on the disks."""

from fsck_cow.data.verify import CODES, check_copies

__all__ = ["CODES", "check_copies"]
