"""Block devices and image files: 4 KiB sectors past the page cache, opened exclusively by writers."""

from __future__ import annotations

from cowlib.device.buffers import SECTOR_SIZE, aligned_buffer, scratch_buffer
from cowlib.device.device import Device, refuse_writing
from cowlib.device.in_use import refuse_mounted, refuse_overlap
from cowlib.device.registry import forget_devices, register_devices
from cowlib.device.signature import signature, wipe_signatures
from cowlib.device.users import mounted_btrfs

__all__ = [
    "SECTOR_SIZE",
    "Device",
    "aligned_buffer",
    "forget_devices",
    "mounted_btrfs",
    "refuse_mounted",
    "refuse_overlap",
    "refuse_writing",
    "register_devices",
    "scratch_buffer",
    "signature",
    "wipe_signatures",
]
