"""Writes all pages and completions below `share/`: `python -m scripts.pages`."""

from __future__ import annotations

from pathlib import Path

from cow_debug_tree.cli import app as cow_debug_tree
from fsck_cow.cli import app as fsck
from mkfs_cow.cli import app as mkfs
from scripts.pages import bash, fish, manual, zsh
from scripts.pages.declared import Declared, declared

SHARE = Path(__file__).resolve().parents[2] / "share"


def commands() -> list[Declared]:
    """What every command declares."""
    return [declared(app) for app in (mkfs, fsck, cow_debug_tree)]


def pages(command: Declared) -> dict[str, str]:
    """The files of one command: their places below `share/`, and what stands in them."""
    name = command.name
    return {
        f"man/man{manual.SECTION}/{name}.{manual.SECTION}": manual.manual(command),
        f"bash-completion/completions/{name}": bash.completion(command),
        f"zsh/site-functions/_{name}": zsh.completion(command),
        f"fish/vendor_completions.d/{name}.fish": fish.completion(command),
    }


def main() -> None:
    """Write them all."""
    for command in commands():
        for place, text in pages(command).items():
            path = SHARE / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
