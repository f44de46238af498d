"""Running a part: what is left out must not be missed by the rest."""

from __future__ import annotations

import pytest

from cowlib.errors import UsageError
from fsck_cow.catalogue import all_codes
from fsck_cow.engine import check_filesystem
from fsck_cow.selection import FILE_SUBJECTS, Selection, parse_selection
from tests import corpus

SUBJECTS = sorted({code.partition(".")[0] for code in all_codes()})


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("name", ["quota", "noskinny", "node4k-bgt"])
def test_each_subject_alone_is_clean(name: str, subject: str) -> None:
    paths = [str(path) for path in corpus.devices(name)]
    report = check_filesystem(paths, scan=False, selection=Selection(frozenset({subject})))
    assert not report.problems


@pytest.mark.parametrize("name", ["quota", "noskinny", "mixed"])
def test_trees_alone_are_clean(name: str) -> None:
    paths = [str(path) for path in corpus.devices(name)]
    assert not check_filesystem(paths, scan=False, selection=Selection(trees_only=True)).problems


DAMAGED = [name for name, verdict in corpus.verdicts().items() if verdict.damaged and name.startswith("fsck-tests")]


@pytest.mark.parametrize("name", DAMAGED)
def test_parts_find_what_the_whole_finds(name: str) -> None:
    """Each subject alone finds its problems, and no other ones."""
    path = str(corpus.image(name))
    whole = check_filesystem([path], scan=False).counts
    for subject in sorted({code.partition(".")[0] for code in whole}):
        selection = Selection(frozenset({subject}))
        part = check_filesystem([path], scan=False, selection=selection).counts
        assert part == {code: count for code, count in whole.items() if selection.wants(code)}
    trees = Selection(trees_only=True)
    part = check_filesystem([path], scan=False, selection=trees).counts
    assert part == {code: count for code, count in whole.items() if trees.wants(code)}


KNOWN = {"inode.nlink-wrong", "inode.size", "extent.missing", "data.unreadable"}


def chosen(*texts: str, trees_only: bool = False, data: bool = False) -> set[str]:
    """The codes of `KNOWN` that are told."""
    selection = parse_selection(texts, trees_only=trees_only, data=data, known=KNOWN)
    assert selection.wants("node.unreadable"), "whatever is asked for, what could not be read is told"
    return {code for code in KNOWN if selection.wants(code)}


def test_words() -> None:
    assert chosen() == KNOWN
    assert chosen("inode.size", "extent") == {"inode.size", "extent.missing"}
    assert chosen("inode.size", data=True) == {"inode.size", "data.unreadable"}
    assert chosen("data", data=True) == {"data.unreadable"}
    assert chosen("extent", trees_only=True) == {"extent.missing"}


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("nlink", {}, "no check is called nlink"),
        ("inode", {"trees_only": True}, "--tree-only leaves out inode"),
        ("inode.size", {"trees_only": True}, "--tree-only leaves out inode.size"),
        ("data", {}, "data is found by reading data"),
        ("data.unreadable", {}, "data.unreadable is found by reading data"),
    ],
)
def test_what_nothing_would_look_for(text: str, options: dict[str, bool], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        chosen("extent", text, **options)


def test_file_subjects_exist() -> None:
    assert set(SUBJECTS) >= FILE_SUBJECTS
