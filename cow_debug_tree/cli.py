"""The command line of ``cow-debug-tree``."""

from __future__ import annotations

from typing import Annotated

import typer

import cowlib
from cow_debug_tree.help import HELP
from cow_debug_tree.output import NAME
from cowcli.command import command_with
from cowcli.errors import tell_error
from cowcli.start import (
    Backup,
    ChunkRootAt,
    NoScan,
    SuperCopy,
    TreeRootAt,
    address,
    address_or_none,
    refuse_idle_backup,
)
from cowcli.stdout import UNHEARD
from cowlib.errors import CowError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME}, part of cowtools v{cowlib.__version__}")
        raise typer.Exit


@app.command(
    cls=command_with(HELP),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def debug_tree(
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...", show_default=False)],
    extents: Annotated[
        bool, typer.Option("-e", "--extents", help="only leaves of the extent and device trees")
    ] = False,
    device: Annotated[bool, typer.Option("-d", "--device", help="only root, chunk and device trees")] = False,
    roots: Annotated[bool, typer.Option("-r", "--roots", help="only where each tree starts")] = False,
    backups: Annotated[bool, typer.Option("-R", "--backups", help="as --roots, and the backup roots")] = False,
    uuid: Annotated[bool, typer.Option("-u", "--uuid", help="only the UUID tree")] = False,
    tree: Annotated[
        str | None, typer.Option("-t", "--tree", metavar="TREE", help="only this tree, by name or number")
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option("-b", "--block", metavar="BYTENR", help="only this node; may be repeated"),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="with --block: and all below it")] = False,
    bfs: Annotated[bool, typer.Option("--bfs", help="level by level [the default]")] = False,
    dfs: Annotated[bool, typer.Option("--dfs", help="children right after their parents")] = False,
    hide_names: Annotated[bool, typer.Option("--hide-names", help="HIDDEN in place of names and values")] = False,
    csum_headers: Annotated[bool, typer.Option("--csum-headers", help="show checksums of nodes")] = False,
    csum_items: Annotated[bool, typer.Option("--csum-items", help="show checksums of data")] = False,
    noscan: NoScan = False,
    min_transid: Annotated[
        int,
        typer.Option("--min-transid", metavar="N", min=0, help="only nodes written in transaction N or later"),
    ] = 0,
    super_copy: SuperCopy = None,
    backup: Backup = None,
    tree_root: TreeRootAt = None,
    chunk_root: ChunkRootAt = None,
    superblock: Annotated[bool, typer.Option("--super", help="show the superblock")] = False,
    every: Annotated[bool, typer.Option("--all", help="with --super: every copy on every device")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="size, height, fill and scatter of each tree")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Show superblocks, trees and statistics of the btrfs on DEVICE..., which is not mounted.

    The text is that of btrfs inspect-internal dump-tree and dump-super. It holds names of files unless they
    are hidden.
    """
    purposes = {"--extents": extents, "--device": device, "--uuid": uuid}
    starts = {"--roots": roots, "--backups": backups}
    one_tree, blocks = {"--tree": tree is not None}, {"--block": bool(block)}
    order = {"--bfs": bfs, "--dfs": dfs}
    sums = {"--csum-headers": csum_headers, "--csum-items": csum_items}
    recent = {"--min-transid": min_transid > 0}
    begin = {"--backup": backup is not None, "--tree-root": bool(tree_root), "--chunk-root": bool(chunk_root)}
    followed = {"--follow": follow}
    if superblock:
        hidden = {"--hide-names": hide_names}  # the label would show
        _refuse_beside("--super", {"--stats": stats} | purposes | starts | one_tree | blocks | followed | order)
        _refuse_beside("--super", sums | hidden | recent | begin)
    if every:
        _refuse_beside("--all", {"--super-copy": super_copy is not None})
    if stats:
        _refuse_beside("--stats", purposes | starts | blocks | followed | order | sums)
    if roots or backups:
        _refuse_beside("--roots" if roots else "--backups", blocks | followed | order | sums)
    if block:
        _refuse_beside("--block", purposes | one_tree)
    if block and not follow:
        _refuse_beside("--block without --follow", order | recent)
    for purpose in (name for name, given in purposes.items() if given):
        _refuse_beside(purpose, one_tree)
    if uuid:
        _refuse_beside("--uuid", {"--extents": extents, "--device": device})  # no tree is of both kinds
    if extents:
        _refuse_beside("--extents", {"--dfs": dfs})  # which shows leaves only
    if bfs:
        _refuse_beside("--bfs", {"--dfs": dfs})
    if as_json:
        _refuse_beside("--json", {"--csum-headers": csum_headers})  # which shows no headers of nodes
    _exclude(every and not superblock, "--all goes with --super")
    _exclude(follow and not block, "--follow goes with --block")
    refuse_idle_backup(backup, tree_root, chunk_root)
    try:
        from cow_debug_tree import show

        if superblock:
            raise typer.Exit(show.superblocks(devices, super_copy or 0, every, as_json=as_json))
        wishes = show.Wishes(
            extents=extents,
            device=device,
            roots=roots or backups,
            backups=backups,
            uuid=uuid,
            tree=None if tree is None else show.tree_id(tree),
            blocks=tuple(address(text) for text in block or ()),
            follow=follow,
            depth_first=dfs,
            min_transid=min_transid,
        )
        with cowlib.open(
            devices,
            scan=not noscan,
            super_copy=super_copy,
            backup=backup,
            tree_root=address_or_none(tree_root),
            chunk_root=address_or_none(chunk_root),
        ) as fs:
            if stats:
                status = show.statistics(fs, wishes, as_json=as_json)
            elif as_json and wishes.roots:
                status = show.json_roots(fs, wishes)
            else:
                status = show.dump(
                    fs,
                    wishes,
                    as_json=as_json,
                    hide_names=hide_names,
                    csum_headers=csum_headers,
                    csum_items=csum_items,
                )
        raise typer.Exit(status)
    except CowError as error:
        tell_error(NAME, error)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        raise typer.Exit(UNHEARD) from None


def _exclude(wrong: bool, why: str) -> None:
    if wrong:
        raise typer.BadParameter(why)


def _refuse_beside(option: str, others: dict[str, bool]) -> None:
    """Refuses the first of some other options that is given: it would change nothing."""
    _exclude(any(others.values()), f"{option} does not go with {next((o for o, given in others.items() if given), '')}")
