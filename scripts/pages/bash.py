"""Completion for Bash, which needs nothing but Bash."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cowcli.help import Values, wrapped
from scripts.pages.declared import Declared

_WIDTH = 100

_START = """\
# Completion of @command@ for Bash. Made by `make docs` from the options of the command: do not edit.

@function@_words() { # END WORD...: those of the words, each with END, that go on from $value
    local end=$1 word
    shift
    for word; do
        if [[ $word == "$value"* ]]; then
            word=$prefix$word$end
            COMPREPLY+=("${word#"$cut"}")
        fi
    done
    if [[ $end ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

@function@_files() { # KIND: names of files (-f) or directories (-d) that go on from $value
    local name
    compopt -o filenames -o default 2>/dev/null
    while IFS= read -r name; do
        name=$prefix$name
        COMPREPLY+=("${name#"$cut"}")
    done < <(compgen "$1" -- "$value")
}

@function@() {
    local option value prefix='' cut piece word i=$COMP_CWORD
    COMPREPLY=()
    # Bash may have cut at = and at colons: the pieces are one word, but only the last one is replaced.
    value=${COMP_WORDS[i]}
    piece=${value##[=:]}
    while ((i > 1)) && [[ ${COMP_WORDS[i]} == [=:]* || ${COMP_WORDS[i - 1]} == [=:] ]]; do
        value=${COMP_WORDS[--i]}$value
    done
    cut=${value%"$piece"}
    option=${COMP_WORDS[i - 1]}
    for word in "${COMP_WORDS[@]:1:i-1}"; do
        if [[ $word == -- ]]; then
            option=--
        fi
    done
    if [[ $option != -- && $value == --*=* ]]; then
        option=${value%%=*}
        value=${value#*=}
        prefix=$option=
    fi
    case $option in
"""

_COLON = """\
@if [[ $value == *:* ]]; then
@    prefix+=${value%%:*}:
@    value=${value#*:}"""

_COMMA = """\
@if [[ $value == *,* ]]; then
@    prefix+=${value%,*},
@    value=${value##*,}
@fi"""


def completion(command: Declared) -> str:
    """The file for `share/bash-completion/completions`."""
    function = "_" + re.sub(r"\W", "_", command.name)
    start = _START.replace("@command@", command.name).replace("@function@", function)
    return start + "\n".join(_cases(command, function)) + f"\n\ncomplete -F {function} {command.name}\n"


def _cases(command: Declared, function: str) -> Iterator[str]:
    by_values: dict[tuple[Values, bool], list[str]] = {}
    for option in command.options:
        if option.metavar is not None:
            by_values.setdefault((option.values, option.optional), []).extend(option.names)
    for (values, optional), names in by_values.items():
        yield f"    {' | '.join(names)})"
        yield from _offer(values, function)
        if not optional:
            yield "        return"
        yield "        ;;"
    yield "    esac"
    yield "    if [[ $option != -- && $value == -* ]]; then"
    yield from _call(f'{function}_words ""', command.names, "        ")
    yield "        return"
    yield "    fi"
    for argument in command.arguments:
        yield from _offer(argument.values, function, "    ")
    yield "}"


def _offer(values: Values, function: str, indent: str = "        ") -> Iterator[str]:
    """What puts into COMPREPLY what goes on from $value."""
    if values.then is not None:
        yield _COLON.replace("@", indent)
        yield from _offer(values.then, function, indent + "    ")
        yield f"{indent}else"
        yield from _first(values, function, ":", indent + "    ")
        yield f"{indent}fi"
        return
    yield from _first(values, function, '""', indent)
    if values.files != "no":
        yield f"{indent}{function}_files {'-f' if values.files == 'any' else '-d'}"


def _first(values: Values, function: str, end: str, indent: str) -> Iterator[str]:
    if values.listed:
        yield _COMMA.replace("@", indent)
    if values.words:
        yield from _call(f"{function}_words {end}", values.words, indent)


def _call(start: str, words: Iterable[str], indent: str) -> Iterator[str]:
    lines = list(wrapped(" ".join([start, *map(_quoted, words)]), _WIDTH, indent, indent + "    "))
    yield from (f"{line} \\" for line in lines[:-1])
    yield lines[-1]


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w./:^,-]+", word) else f"'{word}'"
