"""One family of errors: what is wrong, where, and what to do about it.

Bytes that came from disk and are wrong are *data* to whoever asked for a check; readers of many nodes collect
`Damage` records beside what they could read.  An exception is raised only where going on makes no sense.
"""

from __future__ import annotations

from dataclasses import dataclass


class CowError(Exception):
    """A failure with one clear line for people.

    ``str(error)`` is that line: the place first (device, logical address, tree, key: whichever is known), then
    what is wrong.  ``hint`` says what to do about it.  ``exit_code`` is what a command should exit with.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        device: str | None = None,
        logical: int | None = None,
        tree: int | None = None,
        key: tuple[int, int, int] | None = None,
        exit_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.device = device
        self.logical = logical
        self.tree = tree
        self.key = key
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        place = []
        if self.device is not None:
            place.append(self.device)
        if self.tree is not None:
            place.append(f"tree {self.tree}")
        if self.logical is not None:
            place.append(f"logical {self.logical}")
        if self.key is not None:
            place.append("key ({} {} {})".format(*self.key))
        return f"{', '.join(place)}: {self.message}" if place else self.message


class DeviceError(CowError):
    """A device or image file cannot be opened, read or written."""


class MountedError(DeviceError):
    """The device is mounted, or otherwise in use by the kernel."""


class NotBtrfsError(CowError):
    """No valid btrfs superblock where one was asked for."""


class UnsupportedError(CowError):
    """The filesystem uses a feature that this version does not understand."""


class DamagedError(CowError):
    """Bytes on disk break a rule of the format."""


class MissingDeviceError(CowError):
    """More devices are missing than the profile survives."""


class NoSpaceError(CowError):
    """What was asked for does not fit."""


class UsageError(CowError):
    """The caller asked for something that cannot be meant."""


@dataclass(frozen=True)
class Damage:
    """A metadata block that could not be used, beside the ones that could.

    ``logical`` is its address in bytes, ``reason`` says what is wrong with every copy that was tried, ``tree`` is the
    objectid of the tree it was reached from (None while the tree is unknown).
    """

    logical: int
    reason: str
    tree: int | None = None

    def __str__(self) -> str:
        where = "" if self.tree is None else f" of tree {self.tree}"
        return f"block {self.logical}{where}: {self.reason}"
