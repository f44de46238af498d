"""Which problems are looked for: all, those of some subjects or codes, or those of trees but not of files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from cowlib.errors import UsageError

#: What is said of inodes and what belongs to them. Such checks gather nothing that checks of other subjects need.
FILE_SUBJECTS = frozenset({"inode", "name", "xattr", "file-extent", "orphan"})

#: What is found by reading data.
_DATA = "data"

#: Without these a run could not say that it saw everything it was to look at.
_ALWAYS = frozenset({"superblock.unusable", "node.unreadable", "node.copy-bad"})


class Finds(Protocol):
    """Whatever has a subject and the codes of the problems it can find."""

    @property
    def subject(self) -> str:
        """The subject, as in its codes."""

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes."""


@dataclass(frozen=True)
class Selection:
    """``only`` are codes and subjects (empty: all); ``trees_only`` leaves out what is said of files."""

    only: frozenset[str] = frozenset()
    trees_only: bool = False

    def wants(self, code: str) -> bool:
        """Whether problems of this code are to be told."""
        if code in _ALWAYS:
            return True
        subject = code.partition(".")[0]
        if self.trees_only and subject in FILE_SUBJECTS:
            return False
        return not self.only or code in self.only or subject in self.only

    def runs(self, check: Finds) -> bool:
        """Whether a check over everything gathered has to run."""
        return not check.codes or any(map(self.wants, check.codes))

    def looks(self, check: Finds) -> bool:
        """Whether a check over leaves has to run: for what it finds, or for what it gathers."""
        return check.subject not in FILE_SUBJECTS or self._wants_files

    @cached_property
    def _wants_files(self) -> bool:
        chosen = {name.partition(".")[0] for name in self.only} or FILE_SUBJECTS
        return not self.trees_only and bool(chosen & FILE_SUBJECTS)


EVERYTHING = Selection()


def parse_selection(texts: Collection[str], *, trees_only: bool, data: bool, known: Iterable[str]) -> Selection:
    """The selection that a user asked for by codes and subjects; with ``data`` what is found in data is told besides.

    Raises UsageError for one that there is none of, and for one that nothing would look for.
    """
    codes = set(known)
    subjects = {code.partition(".")[0] for code in codes}
    for text in texts:
        subject = text.partition(".")[0]
        if text not in codes and text not in subjects:
            raise UsageError(f"no check is called {text}", hint=f"subjects are {', '.join(sorted(subjects))}")
        if trees_only and subject in FILE_SUBJECTS:
            raise UsageError(f"--tree-only leaves out {text}")
        if subject == _DATA and not data:
            raise UsageError(f"{text} is found by reading data", hint="add --data")
    only = {*texts, _DATA} if data and texts else texts
    return Selection(frozenset(only), trees_only)
