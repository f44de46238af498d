"""How file data is to be compressed, and where how: what ``--compress`` says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cowlib.errors import UsageError
from cowlib.format import Compression

#: Algorithm, its default level and its highest one. LZO has no levels.
_COMPRESSIONS = {
    "zlib": (Compression.ZLIB, 3, 9),
    "lzo": (Compression.LZO, 1, 1),
    "zstd": (Compression.ZSTD, 3, 15),
}

#: What a comma does not end: a pattern may have one behind a backslash.
_ITEM = re.compile(r"(?:[^,\\]|\\.)*", re.DOTALL)


@dataclass(frozen=True)
class CompressionChoice:
    """How file data is compressed: ``algorithm`` and ``level``."""

    algorithm: Compression
    level: int

    @property
    def name(self) -> str:
        """The algorithm as users and the kernel spell it."""
        return next(name for name, (algorithm, _, _) in _COMPRESSIONS.items() if algorithm == self.algorithm)


@dataclass(frozen=True)
class CompressionRule:
    """How what lies at and below ``pattern`` is compressed, None: not at all.

    The pattern is a path or glob from the root directory, without slashes at its ends.
    """

    pattern: str
    choice: CompressionChoice | None


@dataclass(frozen=True)
class CompressionChoices:
    """The filesystem's own choice, and the rules for some paths."""

    default: CompressionChoice | None = None
    rules: tuple[CompressionRule, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is compressed at all."""
        return any(choice is not None for choice in self.all())

    def all(self) -> list[CompressionChoice | None]:
        """The default, then each rule's: what `Tree.compression` counts."""
        return [self.default, *(rule.choice for rule in self.rules)]


def parse_compression(text: str) -> CompressionChoice | None:
    """``ALGO[:LEVEL]``; ``no`` gives None. Raises UsageError."""
    name, colon, level_text = text.lower().partition(":")
    if name in ("no", "none") and not colon:
        return None
    if name not in _COMPRESSIONS:
        raise UsageError(f"unknown compression '{text}'", hint="choose zstd, zlib, lzo or no")
    algorithm, default, highest = _COMPRESSIONS[name]
    if not colon:
        return CompressionChoice(algorithm, default)
    if not re.fullmatch(r"[0-9]{1,3}", level_text) or not 1 <= int(level_text) <= highest:
        raise UsageError(f"level '{level_text}' is not one of {name}: 1 to {highest}")
    return CompressionChoice(algorithm, int(level_text))


def parse_compressions(text: str) -> CompressionChoices:
    """``[ALGO[:LEVEL]][,PATH=ALGO[:LEVEL]]...`` as given to ``--compress``. Raises UsageError."""
    default: CompressionChoice | None = None
    rules: dict[str, CompressionRule] = {}
    for number, item in enumerate(_items(text)):
        path, equals, choice = item.rpartition("=")
        if not equals and number == 0:
            default = parse_compression(choice)
            continue
        if not equals:
            raise UsageError(f"--compress: '{item}' is not PATH=ALGO[:LEVEL]", hint="only what comes first has no path")
        pattern = _from_root(path)
        if pattern in rules:
            raise UsageError(f"--compress: '{path}' is given twice")
        rules[pattern] = CompressionRule(pattern, parse_compression(choice))
    return CompressionChoices(default, tuple(rules.values()))


def _items(text: str) -> list[str]:
    items, start = [], 0
    while True:
        match = _ITEM.match(text, start)
        end = match.end() if match else start
        items.append(text[start:end])
        if end == len(text):
            return items
        if text[end] != ",":
            raise UsageError(f"--compress: '{text}' ends in a backslash")
        start = end + 1


def _from_root(path: str) -> str:
    """A path or pattern in one spelling. Raises UsageError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"--compress: '{path}' leaves the root directory")
    if not parts:
        raise UsageError(
            f"--compress: '{path}' means everything", hint="what holds for everything comes first, without ="
        )
    return "/".join(parts)
