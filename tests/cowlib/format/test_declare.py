"""One declaration, two views: what construct parses is what numpy sees."""

import construct
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cowlib.format as format
from cowlib.format import InodeItem, InodeRefPayload, RootItem, columns

FIXED = sorted(
    name
    for name in format.__all__
    if isinstance(getattr(format, name), construct.Struct) and not name.endswith("Payload")
)


@pytest.mark.parametrize("name", FIXED)
def test_columns_have_the_declared_size_and_names(name: str) -> None:
    struct = getattr(format, name)
    dtype = columns(struct)
    assert dtype.itemsize == struct.sizeof()
    assert list(dtype.names or ()) == [field.name for field in struct.subcons]
    assert columns(struct) is dtype


def as_python(value: object) -> object:
    """A numpy scalar or a parsed container as plain dicts, lists, numbers and bytes."""
    if isinstance(value, np.void) and value.dtype.names:
        return {name: as_python(value[name]) for name in value.dtype.names}
    if isinstance(value, np.void):
        return value.tobytes()
    if isinstance(value, np.ndarray):
        return [as_python(element) for element in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: as_python(element) for name, element in value.items()}
    if isinstance(value, list):
        return [as_python(element) for element in value]
    return value


@pytest.mark.parametrize("name", FIXED)
@given(seed=st.integers(0, 2**32 - 1))
def test_columns_and_construct_read_the_same_values(name: str, seed: int) -> None:
    struct = getattr(format, name)
    data = np.random.default_rng(seed).bytes(struct.sizeof())
    parsed = struct.parse(data)
    assert as_python(np.frombuffer(data, columns(struct))[0]) == as_python(parsed)
    assert struct.build(parsed) == data


def test_parsed_containers_hold_declared_fields_only() -> None:
    parsed = RootItem.parse(bytes(RootItem.sizeof()))
    assert list(parsed) == [field.name for field in RootItem.subcons]
    assert list(parsed.inode.atime) == ["sec", "nsec"]


def test_times_are_signed() -> None:
    parsed = InodeItem.parse(bytes(112) + b"\xff" * 8 + bytes(40))
    assert parsed.atime.sec == -1
    assert columns(InodeItem)["atime"]["sec"] == np.dtype("<i8")


@pytest.mark.parametrize("struct", [InodeRefPayload.subcon, format.ChunkPayload, format.InlineExtentPayload])
def test_no_columns_of_varying_size(struct: construct.Struct) -> None:
    with pytest.raises(TypeError):
        columns(struct)


def test_every_field_is_described_once_in_a_while() -> None:
    assert "bytes" in next(field.docs for field in InodeItem.subcons if field.name == "size")
