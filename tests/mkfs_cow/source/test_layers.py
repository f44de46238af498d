"""Layers of images: what each adds, and what it hides of those below."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cowlib.errors import CowError
from mkfs_cow.source.layers import scan_layers
from mkfs_cow.source.tables import Tree
from tests import oracles
from tests.commands import mkfs, mkfs_refuses, run_command
from tests.mkfs_cow.source.compared import check_order, data_of, in_tables, on_disk, paths_of
from tests.mkfs_cow.source.test_archive import made, member

Layer = list[tuple[tarfile.TarInfo, bytes]]


def never(line: str) -> None:
    raise AssertionError(line)


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.DIRTYPE, **fields)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.LNKTYPE, linkname=target)


def scanned(folder: Path, *layers: Layer, warn: Callable[[str], None] = never) -> Tree:
    paths = [str(made(folder / f"layer{i}", *layer)) for i, layer in enumerate(layers)]
    tree = scan_layers(paths, warn=warn)
    check_order(tree)
    return tree


def text_of(tree: Tree, inode: int) -> bytes:
    return b"".join(data for _, data in data_of(tree, inode))


def contents(folder: Path, *layers: Layer) -> dict[bytes, bytes | None]:
    """Every path but the root, and what is in the files."""
    tree = scanned(folder, *layers)
    regular = tree.is_type(stat.S_IFREG)
    return {path: text_of(tree, i) if regular[i] else None for path, i in paths_of(tree).items() if path}


LOWER: Layer = [
    directory("d"),
    member("d/a", b"lower a"),
    member("d/b", b"lower b"),
    directory("d/e"),
    member("d/e/c", b"lower c"),
    member("f", b"lower f"),
]


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        (
            [],
            {b"d": None, b"d/a": b"lower a", b"d/b": b"lower b", b"d/e": None, b"d/e/c": b"lower c", b"f": b"lower f"},
        ),
        ([member("d/.wh.a")], {b"d": None, b"d/b": b"lower b", b"d/e": None, b"d/e/c": b"lower c", b"f": b"lower f"}),
        ([member(".wh.d")], {b"f": b"lower f"}),
        ([member(".wh.d"), member(".wh.f")], {}),
        ([member(".wh..wh..opq")], {}),
        ([member("d/.wh..wh..opq")], {b"d": None, b"f": b"lower f"}),
        # What the layer itself has stays, before and after.
        ([member("f", b"mine"), member(".wh.f"), member(".wh.d")], {b"f": b"mine"}),
        ([member(".wh.f"), member("f", b"mine"), member(".wh.d")], {b"f": b"mine"}),
        ([member("d/a", b"mine"), member("d/.wh..wh..opq"), member(".wh.f")], {b"d": None, b"d/a": b"mine"}),
        ([member("d/.wh..wh..opq"), member("d/a", b"mine"), member(".wh.f")], {b"d": None, b"d/a": b"mine"}),
        ([member("d/e/x", b"mine"), member(".wh..wh..opq")], {b"d": None, b"d/e": None, b"d/e/x": b"mine"}),
        ([directory("d"), member(".wh.d"), member(".wh.f")], {b"d": None}),
        (
            [member("d/a", b"mine"), directory("d"), member("d/.wh..wh..opq"), member(".wh.f")],
            {b"d": None, b"d/a": b"mine"},
        ),
        ([member(".wh.d"), directory("d"), member("d/z", b"z"), member(".wh.f")], {b"d": None, b"d/z": b"z"}),
        # One thing in place of another.
        ([member("d", b"a file"), member(".wh.f")], {b"d": b"a file"}),
        ([directory("f"), member("f/x", b"x"), member(".wh.d")], {b"f": None, b"f/x": b"x"}),
        # Whiteouts of nothing, through nothing, and notes of AUFS.
        (
            [member(".wh.none"), member("no/way/.wh.x"), member("f/.wh.x"), member("no/.wh..wh..opq"), member(".wh.d")],
            {b"f": b"lower f"},
        ),
        (
            [member(".wh..wh.aufs"), directory(".wh..wh.plnk"), member(".wh..wh.plnk/1.2", b"x"), member(".wh.d")],
            {b"f": b"lower f"},
        ),
    ],
)
def test_two_layers(tmp_path: Path, upper: Layer, expected: dict[bytes, bytes | None]) -> None:
    assert contents(tmp_path, LOWER, upper) == expected


def test_a_name_may_come_back(tmp_path: Path) -> None:
    layers = [LOWER, [member(".wh.f"), member("d/.wh..wh..opq")], [member("f", b"again"), member("d/a", b"again")]]
    assert contents(tmp_path, *layers) == {b"d": None, b"d/a": b"again", b"f": b"again"}


def test_a_directory_over_a_directory_has_its_own_attributes(tmp_path: Path) -> None:
    lower = [directory("d", mode=0o700, uid=1), member("d/a", b"a")]
    entry = in_tables(scanned(tmp_path, lower, [directory("d", mode=0o751, uid=5, mtime=77)]))[b"d"]
    assert (entry.mode & 0o7777, entry.uid, entry.mtime, entry.size) == (0o751, 5, 77 * 10**9, 2)


def test_hard_links_to_files_of_lower_layers(tmp_path: Path) -> None:
    tree = scanned(tmp_path, LOWER, [link("g", "d/a"), member("d/.wh.a"), link("d/n", "f")], [member("f", b"new")])
    paths = paths_of(tree)
    assert b"d/a" not in paths
    assert text_of(tree, paths[b"g"]) == b"lower a"
    assert text_of(tree, paths[b"d/n"]) == b"lower f"  # the other name has a new file now
    assert text_of(tree, paths[b"f"]) == b"new"
    assert [int(tree.nlink[paths[path]]) for path in (b"g", b"d/n", b"f")] == [1, 1, 1]


def test_a_whiteout_spares_a_hard_link_of_its_layer(tmp_path: Path) -> None:
    tree = scanned(tmp_path, [*LOWER, link("f2", "f")], [link("d/f", "f"), member("d/.wh.f"), member(".wh.f2")])
    paths = paths_of(tree)
    assert b"f2" not in paths
    assert paths[b"d/f"] == paths[b"f"]
    assert tree.nlink[paths[b"f"]] == 2


def test_links_on_the_way_are_followed_across_layers(tmp_path: Path) -> None:
    lower = [directory("usr"), directory("usr/lib"), member("lib", kind=tarfile.SYMTYPE, linkname="usr/lib")]
    assert contents(tmp_path, lower, [member("lib/x", b"x")])[b"usr/lib/x"] == b"x"
    assert contents(tmp_path, lower, [directory("lib"), member("lib/x", b"x")])[b"lib/x"] == b"x"


def test_what_is_no_whiteout(tmp_path: Path) -> None:
    told: list[str] = []
    layer = [member(".wh."), member(".wh..."), member(".wh.."), member("a/.wh.b/c"), member("k", b"k")]
    tree = scanned(tmp_path, [], layer, warn=told.append)
    assert set(paths_of(tree)) == {b"", b"k"}
    where = f"{tmp_path / 'layer1'}"
    names = (".wh.", ".wh...", ".wh..", "a/.wh.b/c")
    assert told == [f"{where}: {name}: it is no whiteout of anything, left out" for name in names]


def test_deep_directories_are_hidden(tmp_path: Path) -> None:
    lower = [member("/".join(["d"] * 3000) + "/f", b"f"), member("k", b"k")]
    assert contents(tmp_path, lower, [member(".wh.d")]) == {b"k": b"k"}


def test_compressed_layers_and_standard_input(tmp_path: Path, image: Path) -> None:
    made(tmp_path / "plain", *LOWER)
    first = tmp_path / "first.gz"
    first.write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    made(tmp_path / "plain", member("d/a", b"second a" * 1000), member(".wh.f"))
    second = tmp_path / "second.zst"
    # As zstd:chunked has it: what tells of the chunks stands in frames that are skipped.
    packed = zstandard.compress((tmp_path / "plain").read_bytes())
    second.write_bytes(packed + b"\x50\x2a\x4d\x18\x04\0\0\0toc!")
    third = made(tmp_path / "third", member("d/.wh.e"), member("g", b"g" * 10000))
    options: list[str | Path] = [
        "-q",
        "--layers",
        first,
        "--layers",
        second,
        "--layers",
        "-",
        "--subvol",
        "default:d",
        "--compress",
        "zstd",
    ]
    mkfs(*options, image, stdin=third)
    with oracles.judged(image) as mountpoint:
        assert sorted(os.listdir(mountpoint)) == ["a", "b"]
        assert (mountpoint / "a").read_bytes() == b"second a" * 1000
        assert (mountpoint / "b").read_bytes() == b"lower b"
    with oracles.loop(image) as device, oracles.mounted(device, options=["subvolid=5"]) as mountpoint:
        assert sorted(os.listdir(mountpoint)) == ["d", "g"]
        assert (mountpoint / "g").read_bytes() == b"g" * 10000


def test_warnings_name_the_layer(tmp_path: Path, image: Path) -> None:
    first, second = made(tmp_path / "first", *LOWER), made(tmp_path / "second", link("x", "nothing"))
    said = run_command("mkfs_cow", "-q", "--layers", first, "--layers", second, image)
    assert said.returncode == 1
    assert f"{second}: x: a hard link to nothing, which is no file before it, left out" in said.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layers", "{tar}", "--from-tar", "{tar}"], "--rootdir, --from-tar and --layers exclude each other"),
        (["--layers", "{tar}", "--rootdir", "."], "--rootdir, --from-tar and --layers exclude each other"),
        (["--layers", "-", "--layers", "-"], "only one of --layers can be standard input"),
        (["--layers", "{tar}", "--layers", "missing"], "missing: No such file or directory"),
    ],
)
def test_refused(tmp_path: Path, image: Path, options: list[str], words: str) -> None:
    tar = str(made(tmp_path / "tar", *LOWER))
    assert words in mkfs_refuses("-q", *(option.format(tar=tar) for option in options), image)


def test_a_broken_layer(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first", *LOWER), tmp_path / "second"
    second.write_bytes(b"x" * 2048)
    with pytest.raises(CowError, match="second: at its beginning: no tar header"):
        scan_layers([str(first), str(second)], warn=never)


# -- what the kernel makes of the same ------------------------------------------------------------------------


def _pack(upper: Path, archive: Path, seed: random.Random) -> Path:
    """The upper directory of an overlay as a layer: as those who make images pack them, whiteouts anywhere."""
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    whiteouts: list[tuple[tarfile.TarInfo, bytes]] = []
    inodes: dict[int, str] = {}
    for path in sorted(upper.rglob("*")):
        name, status = str(path.relative_to(upper)), path.lstat()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            whiteouts.append(member(str(path.parent.relative_to(upper) / f".wh.{path.name}")))
            continue
        fields: dict[str, Any] = {"mode": stat.S_IMODE(status.st_mode), "uid": status.st_uid, "gid": status.st_gid}
        if stat.S_ISDIR(status.st_mode):
            members.append(directory(name, **fields))
            if b"trusted.overlay.opaque" in map(os.fsencode, os.listxattr(path)):
                whiteouts.append(member(f"{name}/.wh..wh..opq"))
        elif status.st_ino in inodes:
            members.append(link(name, inodes[status.st_ino]))
        elif stat.S_ISLNK(status.st_mode):
            members.append(member(name, kind=tarfile.SYMTYPE, linkname=os.readlink(path)))
        else:
            inodes[status.st_ino] = name
            members.append(member(name, path.read_bytes(), **fields))
    for whiteout in whiteouts:
        parent = os.path.dirname(whiteout[0].name)
        after = next((i + 1 for i, (info, _) in enumerate(members) if info.name == parent), 0)
        members.insert(seed.randint(after, len(members)), whiteout)
    return made(archive, *members)


def _change(top: Path, seed: random.Random, number: int) -> None:
    """Does something to a tree."""
    everything = sorted(path for path in top.rglob("*") if "work" not in path.parts)
    folders = [top, *(path for path in everything if path.is_dir() and not path.is_symlink())]
    files = [path for path in everything if path.is_file() and not path.is_symlink()]
    name = seed.choice("abcde")
    here = seed.choice(folders) / name
    match seed.randrange(6):
        case 0 | 1 if here.is_symlink() or not here.exists():
            here.unlink(missing_ok=True)
            here.write_text(f"{number}")
        case 0 | 1 if here.is_file():
            here.write_text(f"again {number}")
        case 2 if not here.is_symlink() and not here.exists():
            here.mkdir(mode=seed.choice([0o755, 0o700]))
        case 3 if here.is_dir() and not here.is_symlink():
            shutil.rmtree(here)
            if seed.random() < 0.6:
                here.mkdir()
        case 3 if here.is_symlink() or here.exists():
            here.unlink()
        case 4 if files and not here.is_symlink() and not here.exists():
            os.link(seed.choice(files), here)
        case 5 if not here.is_symlink() and not here.exists():
            here.symlink_to(seed.choice("abcde"))


@pytest.mark.parametrize("number", range(12))
def test_as_overlayfs_has_it(tmp_path: Path, number: int) -> None:
    oracles.require_oracle("root", "mount.program")
    seed = random.Random(number)
    place, merged = tmp_path / "place", tmp_path / "merged"
    place.mkdir()
    merged.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, text=True)  # on any disk
    if mount.returncode:
        pytest.skip(f"no tmpfs: {mount.stderr.strip()}")
    try:
        (place / "base").mkdir()
        lowers, layers = [place / "base"], []
        for layer in range(5):
            upper, work = place / f"upper{layer}", place / f"work{layer}"
            upper.mkdir()
            work.mkdir()
            options = f"lowerdir={':'.join(map(str, reversed(lowers)))},upperdir={upper},workdir={work}"
            overlay = subprocess.run(
                ["mount", "-t", "overlay", "overlay", "-o", options, merged], capture_output=True, text=True
            )
            if overlay.returncode:
                pytest.skip(f"no overlayfs: {overlay.stderr.strip()}")
            try:
                for step in range(30):
                    _change(merged, seed, 100 * layer + step)
                expected = on_disk(merged)
                data = {
                    os.fsencode(p.relative_to(merged)): p.read_bytes()
                    for p in merged.rglob("*")
                    if p.is_file() and not p.is_symlink()
                }
            finally:
                subprocess.run(["umount", merged], check=True)
            lowers.append(upper)
            layers.append(str(_pack(upper, tmp_path / f"layer{layer}.tar", seed)))
            tree = scan_layers(layers, warn=never)
            entries = in_tables(tree)
            kinds = {path: (e.mode, e.target, e.size) for path, e in expected.items() if path}
            assert {path: (e.mode, e.target, e.size) for path, e in entries.items() if path} == kinds
            assert {path: text_of(tree, paths_of(tree)[path]) for path in data} == data
    finally:
        subprocess.run(["umount", place], check=True)
