"""The command line of ``fsck.cow``: what to check, progress, words for people, the exit codes of fsck(8)."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer

import cowlib
from cowcli.command import command_with
from cowcli.errors import tell_error
from cowcli.start import (
    Backup,
    ChunkRootAt,
    NoScan,
    SuperCopy,
    TreeRootAt,
    address_or_none,
    refuse_idle_backup,
)
from cowlib.errors import CowError, UsageError
from fsck_cow.help import HELP

if TYPE_CHECKING:
    from cowlib.filesystem import StartPoint
    from fsck_cow.problems import Report
    from fsck_cow.selection import Selection

NAME = "fsck.cow"

#: Exit codes, as in fsck(8).
CLEAN, UNCORRECTED, OPERATIONAL, USAGE = 0, 4, 8, 16

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME}, part of cowtools v{cowlib.__version__}")
        raise typer.Exit


@app.command(
    cls=command_with(HELP),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def fsck(
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...", show_default=False)],
    data: Annotated[
        bool, typer.Option("--data", help="also read every copy of all data and verify its checksums")
    ] = False,
    tree_only: Annotated[
        bool, typer.Option("--tree-only", help="only trees, chunks, extents and roots: not inodes and their items")
    ] = False,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            metavar="CODE|SUBJECT",
            help="only look for such problems, and with --data for those of data; may be repeated",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="problems shown of each code; 0 is all")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line; the last one sums up")] = False,
    noscan: NoScan = False,
    super_copy: SuperCopy = None,
    backup: Backup = None,
    tree_root: TreeRootAt = None,
    chunk_root: ChunkRootAt = None,
    read_only: Annotated[bool, typer.Option("-n", help="change nothing [the default]")] = False,
    automatic: Annotated[
        bool, typer.Option("-a", "-p", help="as fsck(8) passes them: only checks; this version repairs nothing")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", help="the same: only checks; this version repairs nothing")] = False,
    force: Annotated[bool, typer.Option("-f", help="as fsck(8) passes it: every check is complete anyway")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="no progress, no notes, no word when clean")] = False,
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Check the btrfs on DEVICE..., which is not mounted. Nothing is ever written to it."""
    if read_only + automatic + yes > 1:
        raise typer.BadParameter("-a (or -p), -n and -y exclude each other")
    refuse_idle_backup(backup, tree_root, chunk_root)
    try:
        logging.basicConfig(format=f"{NAME}: %(message)s", level=logging.WARNING)
        from cowlib.filesystem import StartPoint

        report = _checked(
            devices,
            StartPoint(super_copy, backup, address_or_none(tree_root), address_or_none(chunk_root)),
            _selection(check or [], trees_only=tree_only, data=data),
            scan=not noscan,
            data=data,
            limit=limit,
            quiet=quiet,
        )
        _tell(report, devices, as_json=as_json, quiet=quiet)
    except CowError as error:
        tell_error(NAME, error)
        raise typer.Exit(USAGE if isinstance(error, UsageError) else OPERATIONAL) from None
    if report.clean:
        raise typer.Exit(CLEAN)
    if automatic or yes:
        sys.stderr.write(f"{NAME}: this version repairs nothing: the problems are as they were\n")
    raise typer.Exit(UNCORRECTED)


def _selection(selected: list[str], *, trees_only: bool, data: bool) -> Selection:
    from fsck_cow.selection import EVERYTHING, parse_selection

    if not selected and not trees_only:
        return EVERYTHING
    from fsck_cow.catalogue import all_codes

    return parse_selection(selected, trees_only=trees_only, data=data, known=all_codes())


def _checked(
    devices: list[str],
    start: StartPoint,
    selection: Selection,
    *,
    scan: bool,
    data: bool,
    limit: int,
    quiet: bool,
) -> Report:
    from cowcli.progress import ProgressBar
    from cowlib.device import refuse_mounted
    from fsck_cow.engine import check_filesystem

    for device in devices:
        # What a mounted filesystem has on disk is never all of one moment.
        refuse_mounted(device)
    with ProgressBar(NAME, enabled=not quiet) as bar:
        return check_filesystem(
            devices, start=start, scan=scan, selection=selection, data=data, limit=limit, progress=bar.update
        )


def _tell(report: Report, devices: list[str], *, as_json: bool, quiet: bool) -> None:
    from fsck_cow.report import json_lines, summary, text_lines

    if as_json:
        lines = list(json_lines(report, devices))
    else:
        lines = list(text_lines(report, notes=not quiet))
        if not quiet or not report.clean:
            lines.append(summary(report, devices))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()
