"""The devices and image files that are to be formatted: checked, made where they are missing, opened for writing."""

from __future__ import annotations

import contextlib
import os
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cowlib.device import (
    Device,
    forget_devices,
    mounted_btrfs,
    refuse_overlap,
    refuse_writing,
    signature,
    wipe_signatures,
)
from cowlib.errors import CowError, DeviceError
from cowlib.format import SUPERBLOCK_OFFSETS, SUPERBLOCK_SIZE

#: Bytes at the front and the end of a device where other filesystems and partition tables keep what names them.
_ERASE = 1 << 20


@dataclass
class Target:
    """One device to format: ``size`` is what the filesystem may use of it in bytes, ``create`` says it is a file that
    has to be made or made longer first."""

    path: Path
    size: int
    create: bool


def inspect_target(path: Path, byte_count: int | None, wanted: int | None, sectorsize: int, force: bool) -> Target:
    """Looks at a device without touching it; raises MountedError, DeviceError, or CowError if it holds something.

    ``byte_count`` is the size asked for with ``-b``.  ``wanted`` is how large an image file that is missing or empty
    should be made otherwise (None: it must be there).  One that has a size keeps it.
    """
    try:
        missing = not path.exists()
    except OSError as error:  # one may not look into the directory
        raise DeviceError(f"cannot open: {error.strerror}", device=str(path)) from None
    if missing and not path.parent.is_dir():
        raise DeviceError(f"there is no directory {path.parent}", device=str(path))
    if missing and _among_devices(path.parent):
        raise DeviceError("there is no such device", device=str(path))
    if missing and not os.access(path.parent, os.W_OK):
        raise DeviceError("cannot be made: no permission for the directory, or it is read-only", device=str(path))
    if missing and (byte_count or wanted):
        return Target(path, _whole(byte_count or wanted or 0, sectorsize), create=True)
    refuse_writing(path)
    found = signature(str(path))
    if found is not None and not force:
        raise CowError(f"holds {found} already", device=str(path), hint="use -f to overwrite it")
    with Device.open(path) as device:
        size, empty_file = device.size, not device.size and not device.is_block
    asked = byte_count or (wanted or 0 if empty_file else size)
    if asked > size and not empty_file:
        raise DeviceError(f"is {size} bytes long, less than the {asked} asked for", device=str(path))
    return Target(path, _whole(asked, sectorsize), create=asked > size)


def inspect_together(paths: list[Path], archives: list[str], fsid: uuid.UUID | None) -> None:
    """Looks at what no device shows alone: raises DeviceError where two share bytes, CowError for a UUID in use.

    None of them may share bytes with one of the ``archives`` either (``-`` is standard input), from which it is filled.
    """
    refuse_overlap(paths)
    for archive in archives:
        for path in paths:
            refuse_overlap(["/dev/stdin" if archive == "-" else archive, path])
    if fsid is not None and mounted_btrfs(fsid):
        raise CowError(
            f"a filesystem with the UUID {fsid} is mounted: the kernel would take one for the other",
            hint="unmount it, or leave out -U for a UUID of its own",
        )


def _among_devices(folder: Path) -> bool:
    """Whether a folder holds devices: an image file made there would lie in memory, and end with it."""
    place, devices = folder.resolve(), Path("/dev")
    return place.is_relative_to(devices) and place.stat().st_dev == devices.stat().st_dev


def _whole(size: int, sectorsize: int) -> int:
    return size // sectorsize * sectorsize


class Unfinished:
    """What a run has done to its targets: undone, or told, if it does not come to its end. A context manager.

    After an error the image files that it made are removed. What became of the others is added to the error as notes:
    they stay, and are not what they were. ``complete`` says that the filesystem is there.
    """

    def __init__(self) -> None:
        self.made: list[Path] = []
        self.erased: list[Path] = []
        self.committing = False
        self.complete = False

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if self.complete:
            error.add_note("the filesystem is made")
            return
        for path in self.made:
            with contextlib.suppress(OSError):
                path.unlink()
                error.add_note(f"{path} is removed")
        for path in self.erased:
            # While superblocks are written nobody knows which of them are there.
            fate = "" if self.committing else ", and it does not mount"
            error.add_note(f"{path} is incomplete: what was on it is gone{fate}")

    def open(self, targets: list[Target], stack: ExitStack) -> list[Device]:
        """Opens all devices exclusively for writing, making image files as long as they have to be."""
        devices = []
        for target in targets:
            if target.create:
                if not target.path.exists():
                    self.made.append(target.path)
                make_file(target)
            devices.append(stack.enter_context(Device.open(target.path, write=True)))
        return devices

    def erase(self, targets: list[Target], devices: list[Device], discard: bool) -> None:
        """Forgets what was on all devices, the kernel too."""
        for target, device in zip(targets, devices, strict=True):
            if target.path not in self.made:
                self.erased.append(target.path)
            erase(device, discard)
        forget_devices([target.path for target in targets])


def make_file(target: Target) -> None:
    """Makes an image file, or makes it longer; raises DeviceError."""
    try:
        fd = os.open(target.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(fd).st_size < target.size:
                os.ftruncate(fd, target.size)
        finally:
            os.close(fd)
    except OSError as error:
        raise DeviceError(
            f"cannot make it {target.size} bytes long: {error.strerror}", device=str(target.path)
        ) from None


def erase(device: Device, discard: bool) -> None:
    """Forgets what was on a device: everything where it can be discarded, at least all that names a filesystem.

    From here on the old contents are gone, and until the superblocks are written nothing mounts.
    """
    whole = device.size // SUPERBLOCK_SIZE * SUPERBLOCK_SIZE
    if discard:
        device.discard(0, whole)
    front = min(_ERASE, whole)
    device.write(0, bytes(front))
    device.write(max(front, whole - _ERASE), bytes(whole - max(front, whole - _ERASE)))
    for offset in SUPERBLOCK_OFFSETS[1:]:
        if offset + SUPERBLOCK_SIZE <= whole:
            device.write(offset, bytes(SUPERBLOCK_SIZE))
    wipe_signatures(device)


def truncate(path: Path, size: int) -> None:
    """Cuts an image file to what the filesystem uses; a block device stays as it is."""
    if path.is_file():
        os.truncate(path, size)
