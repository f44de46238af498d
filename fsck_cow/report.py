"""What was found, for people (grouped by code, a summary at the end) and for programs (JSON, an object a line)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from fsck_cow.problems import Problem, Report, Severity

_PLURALS = {
    Severity.ERROR: ("error", "errors"),
    Severity.REPAIRABLE: ("repairable problem", "repairable problems"),
    Severity.NOTE: ("note", "notes"),
}


def text_lines(report: Report, *, notes: bool = True) -> Iterator[str]:
    """The problems, a paragraph for each code, the worst first."""
    groups: dict[str, list[Problem]] = {}
    for problem in report.problems:
        groups.setdefault(problem.code, []).append(problem)
    for code in sorted(groups, key=lambda code: -report.severities[code]):
        severity = report.severities[code]
        if severity == Severity.NOTE and not notes:
            continue
        count = report.counts[code]
        yield f"{code}: {_counted(count, severity)}"
        for problem in groups[code]:
            yield f"    {describe(problem)}"
        if count > len(groups[code]):
            yield f"    ... and {count - len(groups[code])} more (--limit 0 shows all)"


def summary(report: Report, devices: Iterable[str]) -> str:
    """One line: clean, or how much of what."""
    name = printable(", ".join(devices))
    counts = by_severity(report)
    parts = [_counted(counts[severity], severity) for severity in sorted(counts, reverse=True) if counts[severity]]
    if report.clean:
        return f"{name}: clean" + (f" ({', '.join(parts)})" if parts else "")
    return f"{name}: {', '.join(parts)}; nothing was changed"


def by_severity(report: Report) -> dict[Severity, int]:
    """How many problems there are of each severity; all of a code count as the worst of that code."""
    counts = dict.fromkeys(Severity, 0)
    for code, count in report.counts.items():
        counts[report.severities[code]] += count
    return counts


def _counted(count: int, severity: Severity) -> str:
    return f"{count:,} {_PLURALS[severity][count != 1]}"


def describe(problem: Problem) -> str:
    """A problem in one line: the place, what is wrong, what was found and what was expected."""
    place = ", ".join(_place(problem))
    text = f"{place}: {problem.message}" if place else problem.message
    if problem.found is not None:
        text += f": found {problem.found}"
    if problem.expected is not None:
        text += f"{',' if problem.found is not None else ':'} expected {problem.expected}"
    return printable(text)


def _place(problem: Problem) -> Iterator[str]:
    if problem.device is not None:
        yield f"device {problem.device}"
    if problem.tree is not None:
        yield f"tree {tree_name(problem.tree)}"
    if problem.logical is not None:
        yield f"logical {problem.logical}"
    if problem.key is not None:
        yield f"key ({key_text(problem.key)})"
    if problem.path is not None:
        yield problem.path


def tree_name(tree: int) -> str:
    """The number of a subvolume; the name of any other tree."""
    from cowlib.format import ObjectId

    if ObjectId.FIRST_FREE <= tree <= ObjectId.LAST_FREE or tree not in ObjectId.__members__.values():
        return str(tree)
    return {1: "ROOT_TREE", 0: "0"}.get(tree, ObjectId(tree).name)


def key_text(key: tuple[int, int, int]) -> str:
    """A key with its type by name."""
    from cowlib.format import KeyType

    objectid, kind, offset = key
    name = KeyType(kind).name if kind in KeyType.__members__.values() else str(kind)
    return f"{objectid} {name} {offset}"


def printable(text: str) -> str:
    """The text without anything that a terminal could take for more: names of files hold any bytes."""
    decoded = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in decoded)


def json_lines(report: Report, devices: Iterable[str]) -> Iterator[str]:
    """A ``problem`` object a line, then one ``summary``.

    A problem has code, severity (note, repairable, error), message, and of device, logical, tree, key, path, found and
    expected those that are known. Bytes of a path that are no UTF-8 stand as lone surrogates (U+DC80 to U+DCFF).
    """
    for problem in report.problems:
        yield json.dumps({"type": "problem", **_fields(problem)})
    counts = by_severity(report)
    yield json.dumps(
        {
            "type": "summary",
            "devices": list(devices),
            "clean": report.clean,
            "errors": counts[Severity.ERROR],
            "repairable": counts[Severity.REPAIRABLE],
            "notes": counts[Severity.NOTE],
            "codes": dict(report.counts),
        }
    )


def _fields(problem: Problem) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "code": problem.code,
        "severity": problem.severity.name.lower(),
        "message": problem.message,
        "device": problem.device,
        "logical": problem.logical,
        "tree": problem.tree,
        "key": problem.key,
        "path": problem.path,
        "found": _plain(problem.found),
        "expected": _plain(problem.expected),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value if isinstance(value, int | float | str | bool | None) else str(value)
