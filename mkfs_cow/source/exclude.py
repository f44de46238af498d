"""Patterns for what to leave out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cowlib.errors import UsageError


def excluder(patterns: Sequence[str]) -> Callable[[str, bool], bool] | None:
    """A function that says of a path relative to the root, and whether it is a directory, if it is left out.

    None if there are no patterns. A pattern without a slash matches a name in any directory; one with a slash
    matches the path from the root (a slash in front changes nothing else); with a slash at its end it matches
    directories only. ``*`` and ``?`` match within a name, ``**`` also across slashes, ``[...]`` one character of a
    set, ``\\`` takes the next character as it is. What is left out takes everything below it along.

    Paths are given as `os.fsdecode` makes them. Raises UsageError for an empty pattern.
    """
    if not patterns:
        return None
    anywhere = _compiled([p for p in patterns if not p.endswith("/")])
    directories = _compiled([p for p in patterns if p.endswith("/")])

    def excluded(path: str, is_directory: bool) -> bool:
        if is_directory and directories.fullmatch(path):
            return True
        return anywhere.fullmatch(path) is not None

    return excluded


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
    if not text:
        raise UsageError(f"'{pattern}' is not a pattern to exclude by")
    if "/" not in text:
        return f"(?:.*/)?{translate(text)}"
    return translate(text.removeprefix("/"))


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
