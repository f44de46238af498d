"""How each block group profile spreads bytes over devices."""

from __future__ import annotations

from dataclasses import dataclass

from cowlib.format import BlockGroupFlag


@dataclass(frozen=True)
class Profile:
    """One profile. A byte is stored ``copies`` times, or covered by ``parity`` stripes.

    ``min_devices`` is what the kernel wants to allocate a new chunk; a chunk needs at least ``min_stripes``
    stripes, exactly that many where ``exact``. ``group`` stripes in a row hold the same bytes (raid10: 2).
    ``tolerated`` devices may be missing.
    """

    name: str
    flag: BlockGroupFlag
    copies: int
    parity: int
    min_devices: int
    min_stripes: int
    exact: bool
    group: int
    tolerated: int

    @property
    def copies_per_device(self) -> int:
        """Stripes of one chunk on the same device: 2 for dup, else 1."""
        return self.min_stripes // self.min_devices if self.exact else 1

    @property
    def sub_stripes(self) -> int:
        """What a chunk item says: how many stripes mirror each other below a striped profile (raid10: 2), else 1."""
        return 1 if self.exact else self.group

    def use_devices(self, available: int) -> int:
        """How many of the available devices a new chunk takes: all of them where it is striped."""
        return min(available, self.min_devices) if self.exact else available // self.group * self.group

    def data_stripes(self, stripes: int) -> int:
        """Columns of data among a chunk's stripes: its length is this many times the bytes it takes of a device."""
        return (stripes - self.parity) // self.group


PROFILES = (
    Profile("single", BlockGroupFlag(0), 1, 0, 1, 1, True, 1, 0),
    Profile("dup", BlockGroupFlag.DUP, 2, 0, 1, 2, True, 2, 0),
    Profile("raid0", BlockGroupFlag.RAID0, 1, 0, 1, 1, False, 1, 0),
    Profile("raid1", BlockGroupFlag.RAID1, 2, 0, 2, 2, True, 2, 1),
    Profile("raid1c3", BlockGroupFlag.RAID1C3, 3, 0, 3, 3, True, 3, 2),
    Profile("raid1c4", BlockGroupFlag.RAID1C4, 4, 0, 4, 4, True, 4, 3),
    Profile("raid10", BlockGroupFlag.RAID10, 2, 0, 2, 2, False, 2, 1),
    Profile("raid5", BlockGroupFlag.RAID5, 1, 1, 2, 2, False, 1, 1),
    Profile("raid6", BlockGroupFlag.RAID6, 1, 2, 3, 3, False, 1, 2),
)
"""Every profile, single first."""


def profile_named(name: str) -> Profile | None:
    """The profile that is spelled like this, in any case; None if there is none."""
    return next((profile for profile in PROFILES if profile.name == name.lower()), None)


def profile_of(flags: int) -> Profile | None:
    """The profile of a chunk's or block group's flags; None if they name two at once."""
    bits = flags & BlockGroupFlag.PROFILE_MASK
    return next((profile for profile in PROFILES if profile.flag == bits), None)
