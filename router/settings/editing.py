"""The rules as text: cut out of the configuration file, and read again after somebody edited them. Nothing is written."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.errors import ConfigError
from router.settings.load import rule_problems, types_of
from router.settings.tables import Settings

#: Of an edited text; a thousand rules take about so much.
TEXT_LENGTH_MAX = 2**16
#: Reading a key of many parts takes time with the square of their number.
_LINE_LENGTH_MAX = 4096
#: What an edited text may hold.
_KEYS = ("default_deliver", "rules")
_TABLE = re.compile(r"\s*\[")
_RULES_TABLE = re.compile(r"\s*\[\[?\s*rules\b")
_RULE = re.compile(r"\s*\[\[\s*rules\s*\]\]")
_TOML_LINE = re.compile(r"\bat line (\d+)")
_RULE_PATH = re.compile(r"rules\[(\d+)\](?:\.(\w+))?")


@dataclass(frozen=True, slots=True)
class RulesText:
    """The rules in force, in the configuration's own syntax."""

    text: str
    lines: tuple[int, ...]
    """Where each rule begins in the configuration file, counted from 1; empty when that cannot be said."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an edited text."""

    text: str
    line: int | None
    """Counted from 1."""


class EditRefused(ConfigError):
    """An edited text means nothing; `found` says where."""

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__([problem.text for problem in found])
        self.found = tuple(found)


def rules_text(settings: Settings) -> RulesText:
    """As the file has them, comments included; written anew where they do not stand there in tables of their own."""
    default = f"default_deliver = {_value(settings.default_deliver)}\n\n" if settings.default_deliver else ""
    if settings.file is not None:
        numbered = list(_rule_lines(settings.file.text))
        text = default + "\n".join(line for _, line in numbered).strip("\n") + "\n"
        lines = tuple(number for number, line in numbered if _RULE.match(line))
        if _means(text, settings) and len(lines) == len(settings.rules):
            return RulesText(text, lines)
    tables = (
        "\n".join(["[[rules]]", *(f"{k} = {_value(v)}" for k, v in rule.model_dump(exclude_unset=True).items())])
        for rule in settings.rules
    )
    return RulesText(default + "\n\n".join(tables) + "\n", ())


def edited(settings: Settings, text: str) -> Settings:
    """These settings with the rules (and the default) of an edited text, which is taken whole: what it lacks is not there.

    Raises EditRefused with every problem, in the words in which a whole file would be refused.
    """
    if len(text) > TEXT_LENGTH_MAX:
        raise EditRefused([Problem(f"the text has more than {TEXT_LENGTH_MAX} characters", None)])
    for number, line in enumerate(text.splitlines(), start=1):
        if len(line) > _LINE_LENGTH_MAX:
            raise EditRefused([Problem(f"a line has more than {_LINE_LENGTH_MAX} characters", number)])
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EditRefused([Problem(f"not valid TOML: {error}", _line_of_toml(str(error), text))]) from error
    except RecursionError as error:
        raise EditRefused([Problem("not valid TOML: nested too deep", None)]) from error
    problems = [f"{key}: only default_deliver and [[rules]] can be tried here" for key in data if key not in _KEYS]
    rules = {key: data[key] for key in _KEYS if key in data}
    read, wrong = types_of(rules)
    problems += wrong + rule_problems(
        rules, classifiers=list(settings.classifiers), destinations=list(settings.destinations)
    )
    if problems or read is None:
        found = [Problem(problem, _line_of(problem, text)) for problem in problems]
        raise EditRefused(sorted(found, key=lambda one: one.line or 0))
    return settings.model_copy(update={"rules": read.rules, "default_deliver": read.default_deliver})


def _means(text: str, settings: Settings) -> bool:
    try:
        again = edited(settings, text)
    except EditRefused:
        return False
    return (again.rules, again.default_deliver) == (settings.rules, settings.default_deliver)


def _rule_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, line) of the tables of rules; comments before a table belong to it."""
    inside = False
    held: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if _TABLE.match(line) and not (inside and line.startswith((" ", "\t"))):
            inside = _RULES_TABLE.match(line) is not None
            if not inside:
                held = []
        elif not line.strip() or line.lstrip().startswith("#"):
            # Whose it is, the next table says. Before the first rule only what stands right above it is its.
            held = [*held, (number, line)] if line.strip() or inside else []
            continue
        if inside:
            yield from held
            yield number, line
        held = []


def _line_of_toml(message: str, text: str) -> int | None:
    if found := _TOML_LINE.search(message):
        return int(found[1])
    return len(text.splitlines()) or 1 if "end of document" in message else None


def _line_of(problem: str, text: str) -> int | None:
    """Where the key stands that a problem names, or else its rule."""
    lines = text.splitlines()
    begins = [number for number, line in enumerate(lines, start=1) if _RULE.match(line)]
    if found := _RULE_PATH.match(problem):
        index, key = int(found[1]), found[2]
        if index >= len(begins):
            return None
        end = begins[index + 1] if index + 1 < len(begins) else len(lines) + 1
        return _key_line(lines, key, begins[index], end) or begins[index]
    return _key_line(lines, problem.partition(":")[0].partition(".")[0], 1, len(lines) + 1)


def _key_line(lines: Sequence[str], key: str | None, first: int, end: int) -> int | None:
    if not key:
        return None
    found = re.compile(rf'\s*(\[+\s*(rules\.)?)?"?{re.escape(key)}\b')
    return next((number for number in range(first, end) if found.match(lines[number - 1])), None)


def _value(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
