"""The features that ``-O`` turns on and off, by the names mkfs.btrfs gives them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cowlib.errors import UsageError
from cowlib.format import CompatRoFeature, IncompatFeature


@dataclass(frozen=True)
class Feature:
    """One feature: its ``name``, what it does in a few words, and the kernel that first mounted it."""

    name: str
    summary: str
    since: str
    default: bool = False
    incompat: int = 0
    compat_ro: int = 0
    alias: str | None = None


FEATURES = (
    Feature(
        "mixed-bg",
        "data and metadata in the same block groups",
        "2.6.37",
        incompat=IncompatFeature.MIXED_GROUPS,
    ),
    Feature("quota", "count space by subvolume (qgroups)", "3.4"),
    Feature(
        "extref",
        "up to 65536 hard links a directory",
        "3.7",
        default=True,
        incompat=IncompatFeature.EXTENDED_IREF,
    ),
    Feature("raid56", "raid5 and raid6 block groups", "3.9", incompat=IncompatFeature.RAID56),
    Feature(
        "skinny-metadata",
        "smaller extent items for tree blocks",
        "3.10",
        default=True,
        incompat=IncompatFeature.SKINNY_METADATA,
    ),
    Feature("no-holes", "holes in files take no items", "3.14", default=True, incompat=IncompatFeature.NO_HOLES),
    Feature(
        "free-space-tree",
        "free space kept in a tree of its own",
        "4.5",
        default=True,
        compat_ro=CompatRoFeature.FREE_SPACE_TREE | CompatRoFeature.FREE_SPACE_TREE_VALID,
        alias="fst",
    ),
    Feature("raid1c34", "raid1 with three or four copies", "5.5", incompat=IncompatFeature.RAID1C34),
    Feature(
        "block-group-tree",
        "block groups in a tree of their own: faster mounts",
        "6.1",
        default=True,
        compat_ro=CompatRoFeature.BLOCK_GROUP_TREE,
        alias="bgt",
    ),
    Feature("squota", "count space by first owner (simple quotas)", "6.7", incompat=IncompatFeature.SIMPLE_QUOTA),
)

_BY_NAME = {name: feature for feature in FEATURES for name in (feature.name, feature.alias) if name}


@dataclass(frozen=True)
class FeatureSet:
    """The features of one filesystem, by name.

    ``given_way`` are those that are on by default, but exclude what was asked for.
    """

    names: frozenset[str]
    given_way: frozenset[str] = field(default=frozenset(), compare=False)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def with_(self, *names: str) -> FeatureSet:
        """This set with more features."""
        return replace(self, names=self.names | set(names))

    @property
    def incompat(self) -> IncompatFeature:
        """The bits these features set in ``incompat_flags``."""
        bits = IncompatFeature(0)
        for feature in FEATURES:
            if feature.name in self.names:
                bits |= feature.incompat
        return bits

    @property
    def compat_ro(self) -> CompatRoFeature:
        """The bits these features set in ``compat_ro_flags``."""
        bits = CompatRoFeature(0)
        for feature in FEATURES:
            if feature.name in self.names:
                bits |= feature.compat_ro
        return bits


DEFAULTS = FeatureSet(frozenset(feature.name for feature in FEATURES if feature.default))


def parse_features(lists: list[str]) -> FeatureSet:
    """The default features changed by comma separated lists like ``quota,^no-holes``; raises UsageError.

    Combinations that the kernel refuses to mount are refused here.
    """
    names, given_way = set(DEFAULTS.names), set()
    asked, declined = set(), set()
    for word in (word.strip() for text in lists for word in text.split(",")):
        if not word:
            continue
        wanted = not word.startswith("^")
        name = word.removeprefix("^")
        feature = _BY_NAME.get(name)
        if feature is None:
            raise UsageError(f"unknown feature '{name}'", hint="mkfs.cow -O list-all shows the features")
        if wanted:
            names.add(feature.name)
            asked.add(feature.name)
        else:
            names.discard(feature.name)
            declined.add(feature.name)
    for name in sorted(asked & declined):
        raise UsageError(f"feature {name} is turned both on and off")
    if "quota" in names and "squota" in names:
        raise UsageError("features quota and squota exclude each other", hint="choose one of them")
    if "block-group-tree" in names and not {"free-space-tree", "no-holes"} <= names:
        missing = " and ".join(sorted({"free-space-tree", "no-holes"} - names))
        if "block-group-tree" in asked:
            raise UsageError(f"feature block-group-tree needs {missing}", hint="leave it out, or turn both on")
        # Nobody asked for it: it was only on by default, so what was asked for wins.
        names.discard("block-group-tree")
        given_way.add("block-group-tree")
    return FeatureSet(frozenset(names), frozenset(given_way))


def describe_features() -> str:
    """What ``-O list-all`` prints: a line a feature."""
    lines = []
    for feature in FEATURES:
        extra = f"kernel {feature.since}" + (", default" if feature.default else "")
        extra += f", alias {feature.alias}" if feature.alias else ""
        lines.append(f"{feature.name:<17} {feature.summary} ({extra})")
    return "\n".join(lines)
