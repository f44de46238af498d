"""The tables of rules in fsck_cow/README.md are those of the registry."""

from __future__ import annotations

import re

from fsck_cow.catalogue import all_codes, rules
from tests.commands import REPOSITORY

README = REPOSITORY / "fsck_cow" / "README.md"

MARKED = re.compile(r"(<!-- rules: begin [^\n]*-->\n).*(<!-- rules: end -->\n)", re.DOTALL)


def tables() -> str:
    """A table for each subject: what holds, and the codes of what does not."""
    by_subject: dict[str, dict[str, list[str]]] = {}
    for rule in rules():
        for code in rule.codes:
            subject = code.partition(".")[0]
            codes = by_subject.setdefault(subject, {}).setdefault(rule.text, [])
            if code not in codes:
                codes.append(code)
    lines = [""]
    for subject in sorted(by_subject):
        lines += [f"### {subject}", "", "| rule | codes |", "|---|---|"]
        for text, codes in by_subject[subject].items():
            cell = text.replace("``", "`").replace("|", "\\|")
            lines.append(f"| {cell} | {', '.join(f'`{code}`' for code in codes)} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def with_tables(text: str) -> str:
    """The page with the tables in their place."""
    return MARKED.sub(lambda found: found[1] + tables() + found[2], text)


def test_tables() -> None:
    """`python -m tests.fsck_cow.test_readme` writes them."""
    assert README.read_text() == with_tables(README.read_text())


def test_every_rule_has_words() -> None:
    assert [rule.codes for rule in rules() if not rule.text] == []


def test_codes_are_well_formed() -> None:
    assert [code for code in all_codes() if not re.fullmatch(r"[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z0-9]+)*", code)] == []


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
