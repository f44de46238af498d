"""Is a device or an image file in use, also by what stands on it or beside it? The kernel is asked, by identity.

A mounted filesystem, swap space, device mapper, md and every other driver has its block devices for itself, in whatever
namespace: opening one of them with ``O_EXCL`` fails. So every device that shares bytes with the target is opened so; a
writer keeps them open until it is done, and nobody can mount one meanwhile. A loop device is the exception: it does not
claim the device it stands on. That is why `stack` follows them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterable, Sequence

from cowlib.device.stack import END, Machine, Place, Target, find_target
from cowlib.device.sysfs import BlockDevice
from cowlib.device.users import use_of
from cowlib.errors import DeviceError, MountedError

_BLKFLSBUF = 0x1261  # linux/fs.h
_HINT = "unmount or detach it first"
TRIES, PAUSE = 5, 0.04
"""How often, and after how many seconds, to ask for a device again: who only looks has it for a moment."""

_held: dict[BlockDevice, list[int]] = {}  # device → [fd, how many writers of this process hold it]
_held_lock = threading.Lock()


class Hold:
    """Devices that share bytes with a target, kept from everybody else until `release`."""

    def __init__(self, devices: Iterable[BlockDevice], caches: Iterable[BlockDevice], machine: Machine) -> None:
        self._devices = list(devices)
        self._caches = list(caches)
        self._machine = machine

    def forget_caches(self) -> None:
        """Make the kernel write out and forget what it keeps of the others: it would get stale, or go over ours."""
        for device in self._caches:
            with contextlib.suppress(OSError):  # without permission there is nothing to be done about it
                fd = os.open(self._machine.node(device), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(fd, _BLKFLSBUF, 0)
                finally:
                    os.close(fd)

    def release(self) -> None:
        """Let the devices go."""
        while self._devices:
            _release(self._devices.pop())


def refuse_mounted(path: str | os.PathLike[str], machine: Machine | None = None) -> None:
    """Raise `MountedError` if ``path`` is mounted, is swapped to, or anything in use shares bytes with it.

    Found by identity: names, links and mount namespaces make no difference. All that stands on it counts, and what it
    stands on, and what stands beside it there if the ranges overlap: loop devices, partitions, mappings, every device
    of a mounted btrfs. What only root could find out counts as not in use. A path that does not exist is in use by
    nobody.
    """
    target = find_target(path, machine or Machine())
    if target is not None:
        hold(target, itself=True, strict=False).release()


def refuse_overlap(paths: Sequence[str | os.PathLike[str]], machine: Machine | None = None) -> None:
    """Raise `DeviceError` if two of these devices and image files share bytes; what does not exist shares none."""
    machine = machine or Machine()
    seen: list[Target] = []
    for path in paths:
        target = find_target(path, machine)
        if target is None:
            continue
        for other in seen:
            if target.overlaps(other):
                raise DeviceError(
                    f"shares bytes with {other.path}",
                    device=target.path,
                    hint="what is written to the one would destroy the other",
                )
        seen.append(target)


def hold(target: Target, *, itself: bool, strict: bool) -> Hold:
    """Claim every device that shares bytes with the target, with the target itself or without (whoever has it open).

    Raises `MountedError` if one of them is in use, and if ``strict`` also where that cannot be found out.
    """
    machine = target.machine
    for place in target.places:
        _refuse_held(target, place)
    held: list[BlockDevice] = []
    try:
        for place in _to_claim(target, itself):
            if _claim(target, place, strict):
                held.append(_device(place))
    except BaseException:
        Hold(held, (), machine).release()
        raise
    own = {target.node} | {place.node for place in target.places if place.mapped}
    others = {
        _device(place): None
        for place in target.places
        if place.relation in ("above", "beside") and place.node not in own
    }
    return Hold(held, others, machine)


def why_busy(target: Target) -> MountedError:
    """The error for a target that the kernel does not let us have, with the use in words where it can be found."""
    return _in_use(target, _itself(target))


def known_use(target: Target) -> str | None:
    """What uses the target itself, its disk or its partitions, in words; None if that cannot be found."""
    return _family_use(target, _itself(target))


def _itself(target: Target) -> Place:
    return Place(target.node, (0, END), "itself")


def _refuse_held(target: Target, place: Place) -> None:
    """What needs no opening: files that are mounted or swapped to as they are, and devices that a driver has taken."""
    if isinstance(place.node, BlockDevice):
        if place.mapped:
            return
        holders = target.machine.holders(place.node)
        use = f"device {holders[0]} stands on it" if holders else None
    else:
        use = use_of(place.node, target.machine)
    if use:
        raise _error(target, place, use)


def _to_claim(target: Target, itself: bool) -> list[Place]:
    """One place for each device to be opened.

    A claim on a disk and claims on its partitions exclude each other, whoever makes them. So a target's own disk and
    partitions go without, and of other disks only the partitions that are concerned are claimed.
    """
    machine = target.machine
    mapped = {place.node for place in target.places if place.mapped}
    places: dict[BlockDevice, Place] = {}
    for place in target.places:
        if isinstance(place.node, BlockDevice) and place.node not in mapped:
            places.setdefault(place.node, place)
    disks = {node: disk[0] for node in places if (disk := machine.disk(node))}
    chosen = []
    for node, place in places.items():
        if node == target.node:
            if itself:
                chosen.append(place)
        elif disks.get(node) != target.node and node not in disks.values():
            chosen.append(place)
    return chosen


def _claim(target: Target, place: Place, strict: bool) -> bool:
    """Open the device exclusively; False if it went away, or nobody can tell and it need not be known."""
    device = _device(place)
    for attempt in range(TRIES):
        try:
            _take(device, target.machine)
            return True
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM):
                return False
            use = use_of(device, target.machine)
            if use is None and error.errno == errno.EBUSY:
                if place.relation != "itself" and _only_elsewhere(target, device):
                    return False
                if attempt + 1 < TRIES:
                    time.sleep(PAUSE)
                    continue
            if use or error.errno == errno.EBUSY:
                raise _in_use(target, place) from error
            if strict:
                what = _words(target, place, "and cannot be asked")
                raise MountedError(
                    f"may be in use: {what}: {error.strerror}", device=target.path, hint="detach it, or ask as root"
                ) from error
            return False
    raise AssertionError("unreachable")


def _only_elsewhere(target: Target, disk: BlockDevice) -> bool:
    """Whether a disk is busy for partitions alone that the target has no part in: then others of them can be had."""
    for partition, _ in target.machine.partitions(disk):
        with contextlib.suppress(OSError):
            _take(partition, target.machine)
            _release(partition)
            return True
    return False


def _take(device: BlockDevice, machine: Machine) -> None:
    with _held_lock:
        if device in _held:
            _held[device][1] += 1
            return
        _held[device] = [open_exclusively(device, machine), 1]


def _release(device: BlockDevice) -> None:
    with _held_lock:
        _held[device][1] -= 1
        if _held[device][1] == 0:
            os.close(_held.pop(device)[0])


def open_exclusively(device: BlockDevice, machine: Machine) -> int:
    """A descriptor; raises `OSError`: EBUSY if the device is claimed by anybody, in any namespace."""
    return os.open(machine.node(device), os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK)


def _family_use(target: Target, place: Place) -> str | None:
    """Claims show on a device, on its disk and on the disk's partitions: whose it is, in words."""
    machine, device = target.machine, place.node
    use = use_of(device, machine)
    if use is None and isinstance(device, BlockDevice):
        disk = machine.disk(device)
        family = [disk[0]] if disk else [number for number, _ in machine.partitions(device)]
        kind = "disk" if disk else "partition"
        found = ((number, use_of(number, machine)) for number in family)
        use = next((f"its {kind} {machine.name(number)}, {words}" for number, words in found if words), None)
    return use


def _in_use(target: Target, place: Place) -> MountedError:
    use = _family_use(target, place)
    return _error(target, place, use or "mounted elsewhere, or held by another program")


def _error(target: Target, place: Place, use: str) -> MountedError:
    return MountedError(f"is in use: {_words(target, place, use)}", device=target.path, hint=_HINT)


def _words(target: Target, place: Place, use: str) -> str:
    if place.relation == "itself":
        return use
    name = target.machine.name(place.node) if isinstance(place.node, BlockDevice) else "a file"
    match place.relation:
        case "above":
            return f"{name} stands on it, {use}"
        case "below":
            return f"it stands on {name}, {use}"
        case _:
            return f"{name} stands on the same bytes, {use}"


def _device(place: Place) -> BlockDevice:
    assert isinstance(place.node, BlockDevice)
    return place.node
