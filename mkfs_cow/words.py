"""Numbers as people read them."""

from __future__ import annotations


def size_in_words(nbytes: int) -> str:
    """Bytes with a binary unit and at most two digits after the point: ``1.5 GiB``."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < 1024 or unit == "PiB":
            break
        value /= 1024
    return f"{value:.2f}".rstrip("0").rstrip(".") + f" {unit}"
