"""Patterns for what to leave out."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from cowlib.errors import UsageError


class Excluder:
    """Says of a path relative to the root, and whether it is a directory, if it is left out.

    Paths are given as `os.fsdecode` makes them.
    """

    def __init__(self, patterns: Sequence[str], root: str | os.PathLike[str] | None = None) -> None:
        """``patterns`` as for `excluder`."""
        texts = [_from_root(pattern, root) for pattern in patterns]
        self._anywhere = _compiled([text for text in texts if not text.endswith("/")])
        self._directories = _compiled([text for text in texts if text.endswith("/")])
        self._waiting = [
            (pattern, text.endswith("/"), _compiled([text])) for pattern, text in zip(patterns, texts, strict=True)
        ]

    def __call__(self, path: str, is_directory: bool) -> bool:
        """Whether it is left out."""
        found = self._anywhere.fullmatch(path) is not None
        if not found and is_directory:
            found = self._directories.fullmatch(path) is not None
        if found and self._waiting:
            self._waiting = [
                waiting
                for waiting in self._waiting
                if (waiting[1] and not is_directory) or waiting[2].fullmatch(path) is None
            ]
        return found

    def unmatched(self) -> list[str]:
        """The patterns, as they were given, that nothing matched so far. What lies below something left out was
        never asked about.
        """
        return [pattern for pattern, _, _ in self._waiting]


def excluder(patterns: Sequence[str], root: str | os.PathLike[str] | None = None) -> Excluder | None:
    """What decides by ``patterns``; None if there are none.

    A pattern without a slash matches a name in any directory; one with a slash matches the path from the root; with a
    slash at its end it matches directories only. ``/`` or ``./`` in front say no more than that it is a path from
    the root, and so does the path of the ``root`` directory, as it was given or absolute, unless something of that
    name is in it. ``*`` and ``?`` match within a name, ``**`` also across slashes, ``[...]`` one character of a set,
    ``\\`` takes the next character as it is. What is left out takes everything below it along.

    Raises UsageError for a pattern that is empty, or means the root itself.
    """
    return Excluder(patterns, root) if patterns else None


def _from_root(pattern: str, root: str | os.PathLike[str] | None) -> str:
    """The pattern in one spelling: a path from the root begins with a slash, and none is doubled."""
    text = pattern
    if root is not None:
        for spelling in (os.path.normpath(root), os.path.abspath(root)):
            relative = text if spelling.startswith("/") else text.removeprefix("./")
            if len(spelling) > 1 and relative.startswith(f"{spelling}/") and not _is_within(spelling, root):
                text = relative.removeprefix(spelling)
                break
    if text == "." or text.startswith("./"):
        text = text[1:]
    text = re.sub(r"/(\./)+", "/", re.sub(r"/{2,}", "/", text))
    if text in ("", "/"):
        raise UsageError(f"'{pattern}' is not a pattern to exclude by")
    return f"/{text}" if "/" in text[:-1] and not text.startswith("/") else text


def _is_within(path: str, root: str | os.PathLike[str]) -> bool:
    """Whether the root directory has something that is called as it is itself."""
    return ".." not in path.split("/") and os.path.lexists(os.path.join(root, path.lstrip("/")))


def _compiled(patterns: list[str]) -> re.Pattern[str]:
    alternatives = [_regex(pattern) for pattern in patterns]
    for pattern, alternative in zip(patterns, alternatives, strict=True):
        try:
            re.compile(alternative)
        except re.error as error:
            raise UsageError(f"'{pattern}' is not a pattern to exclude by: {error.msg}") from None
    nothing = "(?!)"
    return re.compile("|".join(alternatives) or nothing, re.DOTALL)


def _regex(pattern: str) -> str:
    """The pattern as a regular expression for whole paths."""
    text = pattern.rstrip("/")
    return translate(text.removeprefix("/")) if "/" in text else f"(?:.*/)?{translate(text)}"


def translate(pattern: str) -> str:
    """The regular expression for what a pattern means: see `excluder`."""
    out, i = [], 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "*":
            if pattern.startswith("*", i):
                i += 1
                if pattern.startswith("/", i):  # "**/" is any number of directories, also none
                    i += 1
                    out.append("(?:.*/)?")
                else:
                    out.append(".*")
            else:
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := _set_end(pattern, i)):
            inside = pattern[i:end]
            negated = inside[:1] in ("!", "^")
            members = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside[negated:])
            out.append(f"(?!/)[{'^' if negated else ''}{members}]")
            i = end + 1
        elif char == "\\" and i < len(pattern):
            out.append(re.escape(pattern[i]))
            i += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _set_end(pattern: str, start: int) -> int:
    """Where the set that begins at ``start`` has its closing bracket; 0 if it has none."""
    first = start + (pattern[start : start + 1] in ("!", "^"))
    return max(pattern.find("]", first + 1), 0)  # a bracket right at the beginning stands for itself
