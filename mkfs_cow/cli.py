"""The command line of ``mkfs.cow``: arguments, progress, words for people."""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cowcli import signals
from cowcli.command import command_with
from cowcli.errors import tell_error
from cowcli.stdout import OutputError
from cowlib import __version__
from cowlib.errors import CowError
from mkfs_cow.compression import parse_compressions
from mkfs_cow.features import describe_features, parse_features
from mkfs_cow.help import HELP
from mkfs_cow.options import (
    Options,
    parse_csum_type,
    parse_epoch,
    parse_inode_flags,
    parse_owner,
    parse_size,
    parse_slack,
    parse_subvolume,
    parse_uuid,
)

if TYPE_CHECKING:
    from mkfs_cow.summary import Summary

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mkfs.cow, part of cowtools v{__version__}")
        raise typer.Exit


@app.command(cls=command_with(HELP, may_be_empty={"label"}), context_settings={"help_option_names": ["-h", "--help"]})
def mkfs(
    devices: Annotated[
        list[Path] | None, typer.Argument(metavar="DEVICE...", show_default=False, readable=False)
    ] = None,
    data: Annotated[str | None, typer.Option("-d", "--data", metavar="PROFILE", help="data profile [single]")] = None,
    metadata: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--metadata",
            metavar="PROFILE",
            help="metadata profile [dup; raid1 on several devices]: single, dup, "
            "raid0, raid1, raid1c3, raid1c4, raid10, raid5, raid6",
        ),
    ] = None,
    mixed: Annotated[bool, typer.Option("-M", "--mixed", help="data and metadata in the same block groups")] = False,
    nodesize: Annotated[str | None, typer.Option("-n", "--nodesize", metavar="SIZE", help="tree block [16K]")] = None,
    sectorsize: Annotated[str, typer.Option("-s", "--sectorsize", metavar="SIZE", help="data block")] = "4K",
    csum: Annotated[
        str, typer.Option("--csum", "--checksum", metavar="TYPE", help="crc32c, xxhash, sha256 or blake2")
    ] = "crc32c",
    label: Annotated[str, typer.Option("-L", "--label", metavar="LABEL", help="name of the filesystem")] = "",
    fsid: Annotated[str | None, typer.Option("-U", "--uuid", metavar="UUID", help="its UUID [random]")] = None,
    device_uuid: Annotated[
        str | None, typer.Option("--device-uuid", metavar="UUID", help="UUID of the only device")
    ] = None,
    byte_count: Annotated[
        str | None, typer.Option("-b", "--byte-count", metavar="SIZE", help="use this much of each device")
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "-O", "--features", metavar="LIST", help="features by comma, ^ turns one off; list-all shows them"
        ),
    ] = None,
    rootdir: Annotated[
        Path | None,
        typer.Option("-r", "--rootdir", metavar="DIR", help="take in this directory tree", readable=False),
    ] = None,
    from_tar: Annotated[
        str | None,
        typer.Option("--from-tar", metavar="FILE", help="take in this tar; - reads standard input"),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layers",
            metavar="FILE",
            help="take in this layer of an OCI image, a tar with whiteouts; lowest layer first, - as above",
        ),
    ] = None,
    subvol: Annotated[
        list[str] | None,
        typer.Option(
            "-u",
            "--subvol",
            metavar="TYPE:DIR",
            help="make DIR of what is taken in a subvolume: rw, ro, default, default-ro; "
            "in an empty filesystem it is made",
        ),
    ] = None,
    root_owner: Annotated[
        str | None,
        typer.Option(
            "--root-owner",
            metavar="UID:GID",
            help="owner of the top directory; in an empty filesystem of all directories",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="leave out what matches; with / the whole path"),
    ] = None,
    all_root: Annotated[bool, typer.Option("--all-root", help="everything belongs to root")] = False,
    owner_map: Annotated[
        Path | None,
        typer.Option(
            "--owner-map",
            metavar="FILE",
            help="change owners as its lines say: uid|gid|both OLD NEW [COUNT]",
            readable=False,
        ),
    ] = None,
    pseudo: Annotated[
        list[Path] | None,
        typer.Option(
            "--pseudo",
            metavar="FILE",
            help="add and change files as its lines say, in mksquashfs's words: PATH TYPE MODE UID GID ...",
            readable=False,
        ),
    ] = None,
    one_file_system: Annotated[
        bool,
        typer.Option("-x", "--one-file-system", help="leave out what is in other filesystems mounted below --rootdir"),
    ] = False,
    reflink: Annotated[
        bool, typer.Option("--reflink", help="share blocks with the files of --rootdir where one filesystem has both")
    ] = False,
    compress: Annotated[
        str,
        typer.Option(
            "--compress",
            metavar="ALGO[:LEVEL][,PATH=...]",
            help="zstd (1-15), zlib (1-9), lzo or no; after commas others for some paths or globs from the root and "
            "what is below them, such as zstd:9,boot=no: the nearest one counts",
        ),
    ] = "no",
    compress_property: Annotated[
        bool,
        typer.Option(
            "--compress-property",
            help="set the compression property too: what is written later is compressed (or, with no, never is)",
        ),
    ] = False,
    sort: Annotated[
        Path | None,
        typer.Option(
            "--sort",
            metavar="FILE",
            help="order of the data on disk, highest first, as its lines say: PATH PRIORITY (-32768 to 32767, else 0)",
            readable=False,
        ),
    ] = None,
    inode_flags: Annotated[
        list[str] | None,
        typer.Option("--inode-flags", metavar="FLAGS:PATH", help="nodatacow, nodatasum for PATH and what is below"),
    ] = None,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="make the filesystem (and an image file) as small as what goes in allows")
    ] = False,
    slack: Annotated[
        str | None,
        typer.Option(
            "--slack",
            metavar="SIZE|PERCENT",
            help="leave room for at least this much more file data, also with --shrink",
        ),
    ] = None,
    nodiscard: Annotated[bool, typer.Option("-K", "--nodiscard", help="do not discard the device first")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="overwrite an existing filesystem")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="only errors and warnings")] = False,
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, show_default=False, metavar="", help="list what goes in")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="tell what was made as JSON")] = False,
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Make a btrfs on DEVICE..., empty or filled from a directory or a tar.

    The same input, UUID (-U) and SOURCE_DATE_EPOCH give the same bytes.
    """
    lists = features or []
    if "list-all" in lists:
        typer.echo(describe_features())
        return
    if not devices:
        raise typer.BadParameter("which device?", param_hint="DEVICE...")
    try:
        options = Options(
            devices=devices,
            data_profile=data,
            metadata_profile=metadata,
            mixed=mixed,
            nodesize=None if nodesize is None else parse_size(nodesize),
            sectorsize=parse_size(sectorsize),
            csum_type=parse_csum_type(csum),
            label=os.fsencode(label),
            fsid=None if fsid is None else parse_uuid(fsid),
            device_uuid=None if device_uuid is None else parse_uuid(device_uuid),
            byte_count=None if byte_count is None else parse_size(byte_count),
            features=parse_features([*lists, "mixed-bg"] if mixed else lists),
            rootdir=rootdir,
            from_tar=from_tar,
            layers=layers or [],
            one_file_system=one_file_system,
            root_owner=None if root_owner is None else parse_owner(root_owner),
            reflink=reflink,
            subvolumes=[parse_subvolume(text) for text in subvol or []],
            inode_flags=[parse_inode_flags(text) for text in inode_flags or []],
            exclude=exclude or [],
            all_root=all_root,
            owner_map=owner_map,
            pseudo=pseudo or [],
            compression=parse_compressions(compress),
            compress_property=compress_property,
            sort=sort,
            shrink=shrink,
            slack=None if slack is None else parse_slack(slack),
            discard=not nodiscard,
            force=force,
            source_date_epoch=parse_epoch(os.environ.get("SOURCE_DATE_EPOCH")),
        )
        _run(options, quiet=quiet, verbose=bool(verbose), as_json=as_json)
    except CowError as error:
        tell_error("mkfs.cow", error)
        raise typer.Exit(error.exit_code) from None
    except signals.Stopped as stopped:
        if not hasattr(stopped, "__notes__"):
            stopped.add_note("nothing was changed")
        raise


def _run(options: Options, *, quiet: bool, verbose: bool, as_json: bool) -> None:
    from cowcli.progress import ProgressBar
    from mkfs_cow.make import make_filesystem

    logging.basicConfig(format="mkfs.cow: %(message)s", level=logging.WARNING)
    # A list and JSON don't mix: then it goes to standard error.
    listed = partial(_tell, otherwise="nothing was changed: ", err=as_json) if verbose else None
    with ProgressBar("mkfs.cow", enabled=not quiet and not verbose) as bar:
        summary = make_filesystem(options, progress=bar.update, warn=bar.warn, listed=listed)
    try:
        _tell_summary(summary, quiet=quiet, as_json=as_json)
    except signals.Stopped as stopped:
        stopped.add_note("the filesystem is made")
        raise


def _tell_summary(summary: Summary, *, quiet: bool, as_json: bool) -> None:
    if as_json or not quiet:
        text = json.dumps(summary.as_json(), indent=2) if as_json else summary.as_text()
        _tell(text)
    if summary.unregistered and len(summary.devices) > 1:
        first, *others = [path for _, _, path in summary.devices]
        members = ",".join(f"device={path}" for path in others)
        typer.echo(
            f"mkfs.cow: note: the kernel could not be told of its devices ({summary.unregistered}): to mount it, run"
            f" 'btrfs device scan' first, or mount -o {members} {first}",
            err=True,
        )
    if summary.warnings:
        count = len(summary.warnings)
        typer.echo(f"mkfs.cow: {count} warning(s): the filesystem is good, but not everything went in", err=True)
        raise typer.Exit(1)


def _tell(text: str, otherwise: str = "the filesystem is made, but ", *, err: bool = False) -> None:
    """Prints to standard output, with ``err`` to standard error; raises CowError, which begins with ``otherwise``,
    where that cannot be.
    """
    try:
        typer.echo(text, err=err)
    except OutputError as error:
        raise CowError(f"{otherwise}standard output fails: {error.reason}") from error
