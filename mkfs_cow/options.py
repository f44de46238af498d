"""What a user asks of a new filesystem, checked before any device is touched."""

from __future__ import annotations

import math
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from cowlib.errors import UsageError
from cowlib.format import LABEL_SIZE, CsumType
from mkfs_cow.compression import CompressionChoices
from mkfs_cow.features import DEFAULTS, FeatureSet
from mkfs_cow.source.identities import NO_ID

CSUM_TYPES = {
    "crc32c": CsumType.CRC32,
    "xxhash": CsumType.XXHASH,
    "xxhash64": CsumType.XXHASH,
    "sha256": CsumType.SHA256,
    "blake2": CsumType.BLAKE2,
    "blake2b": CsumType.BLAKE2,
}


def csum_name(csum_type: CsumType) -> str:
    """A checksum type as users spell it."""
    return next(name for name, value in CSUM_TYPES.items() if value == csum_type)


#: No file is longer, in bytes, and no time later, in seconds.
_LARGEST = 2**63 - 1

#: Bytes of a tree block, unless sectors are longer.
_NODESIZE = 16384

_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


@dataclass(frozen=True)
class SubvolumeSpec:
    """A directory that becomes a subvolume: ``path`` relative to the root directory, as bytes; empty for the top one,
    which is one in any case."""

    path: bytes
    readonly: bool
    default: bool


@dataclass(frozen=True)
class InodeFlagsSpec:
    """Inode flags for ``path`` (relative to the root directory) and what is below it in the same subvolume."""

    path: bytes
    nodatacow: bool
    nodatasum: bool


@dataclass(frozen=True)
class Slack:
    """Room for more files: in ``nbytes``, or in ``percent`` of what there is."""

    nbytes: int = 0
    percent: float = 0

    def of(self, content: int) -> int:
        """How many bytes that is beside ``content`` bytes."""
        return self.nbytes + math.ceil(content * self.percent / 100)


@dataclass(frozen=True)
class Options:
    """Everything that shapes a new filesystem, as asked for. Sizes are bytes; None means: choose what suits."""

    devices: list[Path]
    data_profile: str | None = None
    metadata_profile: str | None = None
    mixed: bool = False
    nodesize: int | None = None
    sectorsize: int = 4096
    csum_type: CsumType = CsumType.CRC32
    label: bytes = b""
    fsid: uuid.UUID | None = None
    device_uuid: uuid.UUID | None = None
    byte_count: int | None = None
    features: FeatureSet = DEFAULTS
    rootdir: Path | None = None
    from_tar: str | None = None
    layers: list[str] = field(default_factory=list)
    one_file_system: bool = False
    root_owner: tuple[int, int] | None = None
    reflink: bool = False
    subvolumes: list[SubvolumeSpec] = field(default_factory=list)
    inode_flags: list[InodeFlagsSpec] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    all_root: bool = False
    owner_map: Path | None = None
    pseudo: list[Path] = field(default_factory=list)
    compression: CompressionChoices = field(default_factory=CompressionChoices)
    compress_property: bool = False
    sort: Path | None = None
    shrink: bool = False
    slack: Slack | None = None
    discard: bool = True
    force: bool = False
    source_date_epoch: int | None = None

    @property
    def filled(self) -> bool:
        """Whether anything goes in at all."""
        return self.rootdir is not None or self.from_tar is not None or bool(self.layers or self.pseudo)

    def resolve(self) -> ResolvedOptions:
        """Settles what one option decides for another; raises UsageError for what cannot be meant."""
        mixed = self.mixed or "mixed-bg" in self.features
        _power_of_two("sector size", self.sectorsize, 4096, 65536)
        nodesize = self.nodesize or (self.sectorsize if mixed else max(_NODESIZE, self.sectorsize))
        _power_of_two("node size", nodesize, self.sectorsize, 65536)
        if mixed:
            _validate_mixed(self.data_profile, self.metadata_profile, nodesize, self.sectorsize)
        if self.byte_count is not None and self.byte_count < self.sectorsize:
            raise UsageError(f"-b {self.byte_count} leaves nothing to use")
        if self.byte_count is not None and self.byte_count > _LARGEST:
            raise UsageError(f"-b {self.byte_count} is more than any device or file can have")
        if len(self.label) >= LABEL_SIZE or b"\n" in self.label or b"\0" in self.label:
            raise UsageError(f"label must be shorter than {LABEL_SIZE} bytes, without newline or NUL")
        if len(self.devices) > 1 and self.device_uuid is not None:
            raise UsageError("--device-uuid is for a filesystem on one device")
        if len(self.devices) != len({device.resolve() for device in self.devices}):
            raise UsageError("the same device is given twice")
        self._validate_source()
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        settled = {
            "mixed": mixed,
            "features": self.features.with_("mixed-bg") if mixed else self.features,
            "nodesize": nodesize,
            "subvolumes": [spec for spec in self.subvolumes if spec.path],
            "readonly_top": any(spec.readonly for spec in self.subvolumes if not spec.path),
        }
        return ResolvedOptions(**asked | settled)

    def _validate_source(self) -> None:
        if (self.rootdir is not None) + (self.from_tar is not None) + bool(self.layers) > 1:
            raise UsageError("--rootdir, --from-tar and --layers exclude each other")
        if self.layers.count("-") > 1:
            raise UsageError("only one of --layers can be standard input")
        if self.rootdir is not None:
            _refuse_no_directory(self.rootdir)
        if self.rootdir is None and (self.one_file_system or self.reflink):
            raise UsageError(f"{'--reflink' if self.reflink else '--one-file-system'} needs --rootdir")
        for name, given in (
            ("--shrink", self.shrink),
            ("--slack", self.slack),
            ("--compress", self.compression),
            ("--exclude", self.exclude),
            ("--all-root", self.all_root),
            ("--owner-map", self.owner_map),
            ("--sort", self.sort),
        ):
            if given and not self.filled:
                raise UsageError(f"{name} needs --rootdir, --from-tar or --layers")
        if self.compress_property and not self.compression:
            raise UsageError("--compress-property needs --compress")
        if self.all_root and self.owner_map is not None:
            raise UsageError("--all-root and --owner-map exclude each other")
        if sum(spec.default for spec in self.subvolumes) > 1:
            raise UsageError("only one subvolume can be the default")
        paths = [spec.path for spec in self.subvolumes]
        if len(paths) != len(set(paths)):
            raise UsageError("the same subvolume is given twice")


@dataclass(frozen=True)
class ResolvedOptions(Options):
    """Options that fit together, nothing of them left open that does not depend on the devices."""

    nodesize: int = _NODESIZE
    #: ``subvolumes`` has all but the top one, which may be read-only itself.
    readonly_top: bool = False


def _validate_mixed(data: str | None, metadata: str | None, nodesize: int, sectorsize: int) -> None:
    if data and metadata and data != metadata:
        raise UsageError("with mixed block groups the data and metadata profiles must be the same")
    if nodesize != sectorsize:
        raise UsageError("with mixed block groups the node size must be the sector size")


def _refuse_no_directory(path: Path) -> None:
    try:
        with os.scandir(path):
            pass
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None


def _power_of_two(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high or value & (value - 1):
        raise UsageError(f"{what} {value} must be a power of two from {low} to {high}")


def parse_size(text: str) -> int:
    """Bytes from text like ``4096``, ``16K`` or ``1.5g`` (powers of 1024); raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgtpe]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise UsageError(f"'{text}' is not a size", hint="write bytes, or a number with K, M, G, T, P or E")
    number, unit = match.groups()
    factor = 1 << _UNITS[unit]
    return int(number) * factor if "." not in number else int(float(number) * factor)


def parse_slack(text: str) -> Slack:
    """A size as `parse_size` takes it, or a percentage like ``10%``; raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if match is None:
        return Slack(nbytes=parse_size(text))
    return Slack(percent=float(match[1]))


def _relative_path(text: str) -> bytes:
    """A path below the root directory in one spelling: no ``.``, no doubled or trailing slashes. Raises UsageError."""
    parts = [part for part in text.encode("utf-8", "surrogateescape").split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError(f"'{text}' leaves the root directory")
    return b"/".join(parts)


def parse_subvolume(text: str) -> SubvolumeSpec:
    """``[TYPE:]DIR`` as given to ``--subvol``; without a type it is ``rw``. Raises UsageError."""
    kind, colon, path = text.partition(":")
    if not colon or "/" in kind:
        kind, path = "rw", text
    if kind not in ("rw", "ro", "default", "default-ro"):
        hint = "choose rw, ro, default or default-ro; write ./ before a name with a colon in it"
        raise UsageError(f"unknown subvolume type '{kind}'", hint=hint)
    if not path:
        raise UsageError(f"'{text}' names no directory", hint="the top one is /")
    return SubvolumeSpec(_relative_path(path), kind in ("ro", "default-ro"), kind.startswith("default"))


def parse_inode_flags(text: str) -> InodeFlagsSpec:
    """``FLAGS:PATH`` as given to ``--inode-flags``; raises UsageError."""
    flags, _, path = text.partition(":")
    names = set(filter(None, flags.split(",")))
    if not path or not names or not names <= {"nodatacow", "nodatasum"}:
        hint = "FLAGS are nodatacow and nodatasum, by comma; PATH is / for everything"
        raise UsageError(f"'{text}' is not FLAGS:PATH", hint=hint)
    return InodeFlagsSpec(_relative_path(path), "nodatacow" in names, "nodatasum" in names)


def parse_owner(text: str) -> tuple[int, int]:
    """``UID:GID`` as given to ``--root-owner``; raises UsageError."""
    numbers = text.split(":")
    if len(numbers) != 2 or not all(re.fullmatch(r"\d{1,10}", number) for number in numbers):
        raise UsageError(f"'{text}' is not UID:GID", hint="write two numbers, such as 1000:1000")
    uid, gid = map(int, numbers)
    if max(uid, gid) >= NO_ID:
        raise UsageError(f"'{text}': no user or group has a number of {NO_ID} or more")
    return uid, gid


def parse_uuid(text: str) -> uuid.UUID:
    """A UUID in its usual spelling; raises UsageError."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a UUID") from None
    if value.int == 0:
        raise UsageError("the UUID of zeros means: none")
    return value


def parse_csum_type(text: str) -> CsumType:
    """A checksum type by name; raises UsageError."""
    if text.lower() not in CSUM_TYPES:
        raise UsageError(f"unknown checksum type '{text}'", hint="choose crc32c, xxhash, sha256 or blake2")
    return CSUM_TYPES[text.lower()]


def parse_epoch(text: str | None) -> int | None:
    """The value of ``SOURCE_DATE_EPOCH`` in seconds, None where it is not set; raises UsageError."""
    if text is None or text == "":
        return None
    if not re.fullmatch(r"-?\d+", text):
        raise UsageError(f"SOURCE_DATE_EPOCH is '{text}', not a number of seconds")
    epoch = int(text)
    if not -_LARGEST <= epoch <= _LARGEST:
        raise UsageError(f"SOURCE_DATE_EPOCH is '{text}': no timestamp goes that far")
    return epoch


def subvolume_of(path: bytes, subvolumes: Sequence[bytes]) -> bytes:
    """The innermost of ``subvolumes`` (relative paths, the root's is empty) that ``path`` lies in or is."""
    parents = [s for s in subvolumes if s == b"" or path == s or path.startswith(s + b"/")]
    return max(parents, key=len, default=b"")
