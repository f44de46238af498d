"""Every field on disk, made wrong one at a time: fsck.cow says so, or `docs/fsck-fields.md` says why it can't."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cowlib.errors import CowError
from tests import corpus
from tests.commands import REPOSITORY
from tests.fsck_cow import craft, enriched
from tests.fsck_cow.fields import Field, all_fields
from tests.fsck_cow.lenient import LENIENT, as_document

DOCUMENT = REPOSITORY / "docs" / "fsck-fields.md"

FIELDS = list(all_fields())

#: The devices of an image, and all that a check says of it.
Prepared = tuple[list[Path], set[str]]


@pytest.fixture(scope="module")
def images() -> dict[str, Prepared]:
    """Copies of the images, made when they are first asked for and put right after each test."""
    return {}


def prepared(images: dict[str, Prepared], name: str, factory: pytest.TempPathFactory) -> Prepared:
    """The devices of one of the images, and what is said of it as it is, which is no error."""
    if name not in images:
        folder = factory.mktemp(name)
        if name == "small":
            devices = craft.small(folder)
        elif name == "enriched":
            devices = enriched.make(folder)
        else:
            devices = craft.copy(corpus.devices(name), folder)
        assert craft.check(devices).clean, name
        images[name] = devices, said(devices)
    return images[name]


def said(devices: list[Path]) -> set[str]:
    """All that a check says."""
    return {repr(problem) for problem in craft.check(devices, limit=20).problems}


def is_told(devices: list[Path], before: set[str], field: Field, how: str) -> bool:
    """Whether a check says more when the field is wrong; the image is as it was afterwards."""
    edit = craft.Editor(devices)
    try:
        with edit:
            field.corrupt(edit, how)
        return bool(said(devices) - before)
    except CowError:
        return True  # it says that it cannot look at it at all
    finally:
        edit.restore()


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.id)
def test_field(field: Field, images: dict[str, Prepared], tmp_path_factory: pytest.TempPathFactory) -> None:
    devices, before = prepared(images, field.image, tmp_path_factory)
    lenient = LENIENT.get(field.id)
    if is_told(devices, before, field, "next"):
        assert lenient is None, "there is a rule, but it is listed as having none"
    elif is_told(devices, before, field, "most"):
        assert lenient is not None and lenient.bounded, "only some wrong values are told"
    else:
        assert lenient is not None and not lenient.bounded, "no wrong value is told"


def test_list_of_exceptions_is_of_this_world() -> None:
    assert set(LENIENT) <= {field.id for field in FIELDS}


def test_document() -> None:
    """`python -m tests.fsck_cow.test_fields` writes it."""
    assert DOCUMENT.read_text() == as_document()


if __name__ == "__main__":
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(as_document())
    sys.exit(0)
