"""Block devices and image files: 4 KiB sectors past the page cache, opened exclusively by writers."""

from __future__ import annotations

from cowlib.device.buffers import SECTOR_SIZE, aligned_buffer, scratch_buffer
from cowlib.device.busy import refuse_mounted
from cowlib.device.device import Device
from cowlib.device.registry import forget_devices, register_devices
from cowlib.device.signature import signature

__all__ = [
    "SECTOR_SIZE",
    "Device",
    "aligned_buffer",
    "forget_devices",
    "refuse_mounted",
    "register_devices",
    "scratch_buffer",
    "signature",
]
