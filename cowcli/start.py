"""Options of commands that read a filesystem: where to begin when the newest superblock is not what one wants."""

from __future__ import annotations

from typing import Annotated

import typer

#: Stands for the newest usable backup root.
NEWEST_BACKUP = -1

NoScan = Annotated[bool, typer.Option("--noscan", help="do not look for further devices")]

SuperCopy = Annotated[
    int | None, typer.Option("--super-copy", metavar="N", min=0, max=2, help="start from this superblock copy")
]

Backup = Annotated[
    int | None,
    typer.Option(
        "--backup",
        metavar="[N]",
        min=NEWEST_BACKUP,
        max=3,
        help="start from this backup root, without N from the newest that can be read",
    ),
]

TreeRootAt = Annotated[str | None, typer.Option("--tree-root", metavar="BYTENR", help="the root tree starts here")]

ChunkRootAt = Annotated[str | None, typer.Option("--chunk-root", metavar="BYTENR", help="the chunk tree starts here")]


def with_optional_values(arguments: list[str]) -> list[str]:
    """The arguments, with a number for every ``--backup`` that comes without one."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    following = [*options[1:], ""]
    return (
        [
            f"{argument}={NEWEST_BACKUP}" if argument == "--backup" and not value.isdecimal() else argument
            for argument, value in zip(options, following, strict=False)  # without arguments, none follow
        ]
        + arguments[len(options) :]
    )


def address(text: str) -> int:
    """A logical address in bytes, decimal or with 0x."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise typer.BadParameter(f"{text} is no address in bytes")
    return value


def address_or_none(text: str | None) -> int | None:
    """An address if there is one."""
    return None if text is None else address(text)


def refuse_idle_backup(backup: int | None, tree_root: str | None, chunk_root: str | None) -> None:
    """Refuses ``--backup`` where other options name all that it could say."""
    if backup is not None and tree_root is not None and chunk_root is not None:
        raise typer.BadParameter("--backup says nothing beside both --tree-root and --chunk-root")
