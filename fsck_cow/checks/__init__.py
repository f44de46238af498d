"""The checks, a module a subject; importing this package registers all of them."""

from __future__ import annotations

import importlib
import pkgutil

from cowlib.device import Device
from cowlib.errors import CowError, DamagedError, NotBtrfsError, UnsupportedError
from fsck_cow.checks import superblocks
from fsck_cow.problems import Problem, Report

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")


#: What is said of a filesystem that cannot be opened.
CODES = ("superblock.unusable",)


def report_unopenable(paths: list[str], error: CowError, report: Report) -> bool:
    """Says of a filesystem that could not be opened what is wrong with each of its devices.

    False, and nothing said, if that is not the filesystem's fault, or if there is no filesystem at all.
    """
    if not isinstance(error, DamagedError | NotBtrfsError | UnsupportedError):
        return False
    found: list[Problem] = []
    for path in paths:
        with Device.open(path) as device:
            found += superblocks.check_device(device)
    if isinstance(error, NotBtrfsError) and all(problem.code == "superblock.missing" for problem in found):
        return False
    report.add(Problem("superblock.unusable", error.message, device=error.device, logical=error.logical))
    report.extend(found)
    return True
