"""Reads the configuration file: every problem is gathered before it is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from router import registry
from router.core.rules import PREDICATES, STUDY_SUMMARY
from router.errors import ConfigError
from router.settings.tables import ClassifierSettings, ConfigFile, DestinationSettings, Settings
from router.settings.values import Table


def load(path: Path) -> Settings:
    """The settings in a TOML file. Raises ConfigError with every problem found."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text"]) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from error
    return parse(data).read_from(ConfigFile(path, text))


def parse(data: Mapping[str, Any]) -> Settings:
    """The settings in a TOML document already read. Raises ConfigError with every problem found."""
    problems: list[str] = []
    plugins = {
        "classifiers": _plugins(data.get("classifiers", {}), "classifiers", ClassifierSettings, problems),
        "destinations": _plugins(data.get("destinations", {}), "destinations", DestinationSettings, problems),
    }
    settings, wrong = types_of({**data, **plugins})
    problems += wrong
    problems += rule_problems(
        data, classifiers=_strings(data.get("classifiers")), destinations=_strings(data.get("destinations"))
    )
    problems += _notify_problems(data)
    if settings is not None and settings.node.port == settings.web.port != 0:
        problems.append(f"web.port: is node.port, too ({settings.web.port})")
    if problems or settings is None:
        raise ConfigError(problems)
    return settings


def _plugins(tables: object, group: str, common: type[Table], problems: list[str]) -> dict[str, Any]:
    """Validates each table of a plug point: the common keys by `common`, the rest by the type's own `Settings`."""
    if not isinstance(tables, Mapping):
        problems.append(f"{group}: must be tables such as [{group}.NAME]")
        return {}
    known = registry.available(f"router.{group}")
    out: dict[str, Any] = {}
    for name, table in tables.items():
        where = (group, name)
        if not isinstance(table, Mapping):
            problems.append(f"{group}.{name}: must be a table such as [{group}.NAME]")
            continue
        kind = table.get("type")
        if not isinstance(kind, str) or kind not in known:
            told = "is missing" if kind is None else f"{kind!r} is not known"
            problems.append(f"{group}.{name}.type: {told}{_suggest(kind, known)}")
            continue
        try:
            plugin: Any = registry.load(f"router.{group}", kind)
        except ImportError as error:
            problems.append(f"{group}.{name}.type: {kind!r} cannot be loaded: {error}")
            continue
        shared = set(common.model_fields) - {"name", "options"}
        own = {k: v for k, v in table.items() if k not in shared}
        try:
            options = plugin.Settings.model_validate(own)
        except ValidationError as error:
            problems += _lines(error, where, plugin.Settings, also=shared)
            options = None
        try:
            values = {k: v for k, v in table.items() if k in shared}
            out[name] = common.model_validate({"name": name, "options": options, **values})
        except ValidationError as error:
            problems += _lines(error, where, common)
    return out


def _lines(
    error: ValidationError, where: tuple[str, ...], model: type[BaseModel], also: Iterable[str] = ()
) -> list[str]:
    lines = []
    for item in error.errors():
        loc = tuple(str(part) for part in item["loc"] if not str(part).startswith("function-"))
        path = _dotted((*where, *loc))
        if item["type"] == "extra_forbidden":
            key = str(item["loc"][-1])
            fields = {*_fields_at(model, item["loc"][:-1]), *also}
            hint = _suggest(key, fields)
            if model is not Settings and key in Settings.model_fields:
                hint = f"; {key!r} stands above the first [table] of the file"
            lines.append(f"{path}: unknown key{hint}")
        else:
            value = item.get("input")
            show = isinstance(value, str | int | float) and item["type"] not in ("missing", "secret")
            lines.append(f"{path}: {_told(item, path)}" + (f" (it is {value!r})" if show else ""))
    return lines


#: pydantic's type of error -> what is wrong, in the words of a TOML file rather than of Python.
_TOLD = {
    "missing": "is missing",
    "string_type": "must be text",
    "is_instance_of": "must be text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list in [ ]",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
}


def _told(item: ErrorDetails, path: str) -> str:
    if item["type"] == "tuple_type" and path in ("rules", "peers"):
        return f"must be tables such as [[{path}]]"
    if item["type"] in _TOLD:
        return _TOLD[item["type"]].format(**item.get("ctx", {}))
    text = item["msg"].removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _dotted(loc: Iterable[str]) -> str:
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in loc).lstrip(".")


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed at a place inside a model."""
    here: type[BaseModel] | None = model
    for part in loc:
        if here is None or isinstance(part, int) or part not in here.model_fields:
            continue
        annotation = here.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        here = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return list(here.model_fields) if here is not None else []


def _suggest(word: object, known: Iterable[str]) -> str:
    known = sorted(known)
    if isinstance(word, str) and (near := get_close_matches(word, known, n=1, cutoff=0.6)):
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else "; none is defined"


def types_of(data: Mapping[str, Any]) -> tuple[Settings | None, list[str]]:
    """The settings of tables whose plugins are read already, or what is wrong with the types of its values."""
    try:
        return Settings.model_validate(data), []
    except ValidationError as error:
        return None, _lines(error, (), Settings)


def rule_problems(data: Mapping[str, Any], *, classifiers: list[str], destinations: list[str]) -> list[str]:
    """Names that refer to nothing, and rules that cannot do what they say.

    Works on the document as written, so that these are reported together with wrong types elsewhere; what has a wrong
    type itself is passed over here, because it has been reported.
    """
    problems: list[str] = []
    results = list(registry.available("router.results"))

    def check(where: str, names: list[str], known: list[str]) -> None:
        for name in names:
            if name not in known:
                problems.append(f"{where}: {name!r} is not defined{_suggest(name, known)}")

    check("default_deliver", _strings(data.get("default_deliver")), destinations)
    rules = data.get("rules")
    seen: set[str] = set()
    for index, rule in enumerate(rules if isinstance(rules, list) else []):
        if not isinstance(rule, Mapping):
            continue
        where = f"rules[{index}]"
        name = rule.get("name")
        if isinstance(name, str) and name in seen:
            problems.append(f"{where}.name: {name!r} is used twice; the ledger tells rules apart by name")
        seen.add(str(name))
        known = {"classify": classifiers, "deliver": destinations, "results": results, "results_to": destinations}
        for key, names in known.items():
            check(f"{where}.{key}", _strings(rule.get(key)), names)
        if rule.get("results") and not rule.get("classify"):
            problems.append(f"{where}.results: needs classify: there is nothing to make results of")
        if STUDY_SUMMARY in _strings(rule.get("results")) and "sr" not in _strings(rule.get("results")):
            problems.append(f'{where}.results: "{STUDY_SUMMARY}" sums up the reports of images: add "sr"')
        if rule.get("results_to") and not rule.get("results"):
            problems.append(f"{where}.results_to: needs results: there is nothing to send")
        if rule.get("results") and not rule.get("results_to"):
            problems.append(f"{where}.results: needs results_to: where should they go?")
        if not (rule.get("classify") or rule.get("deliver")):
            problems.append(f"{where}: has neither classify nor deliver: it would take instances and do nothing")
        problems += _unknown_predicates(where, _strings(rule.get("when")))
    return problems


def _notify_problems(data: Mapping[str, Any]) -> list[str]:
    """Names in [notify.NAME] that refer to nothing: nobody would ever be told, and nobody would notice."""
    problems: list[str] = []
    classifiers, destinations = _strings(data.get("classifiers")), _strings(data.get("destinations"))
    tables = data.get("notify")
    for name, table in tables.items() if isinstance(tables, Mapping) else ():
        if not isinstance(table, Mapping):
            continue
        asked = [
            ("destination_down", "destinations", destinations),
            ("task_failed", "targets", [*destinations, *classifiers]),
        ]
        named = [(key, field, _strings(_table(table.get(key)).get(field)), known) for key, field, known in asked]
        findings = table.get("findings")
        for index, finding in enumerate(findings if isinstance(findings, list) else []):
            classifier = _table(finding).get("classifier")
            named.append((f"findings[{index}]", "classifier", _strings([classifier]), classifiers))
        for key, field, words, known in named:
            problems += [
                f"notify.{name}.{key}.{field}: {word!r} is not defined{_suggest(word, known)}"
                for word in words
                if word not in known
            ]
    return problems


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: object) -> list[str]:
    """The texts in a TOML array or the keys of a TOML table; none for anything else."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | Mapping) else []


def _unknown_predicates(where: str, names: Iterable[str]) -> list[str]:
    from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

    problems = []
    for name in names:
        if name in PREDICATES:
            continue
        tag = tag_for_keyword(name)
        if tag is None:
            near = get_close_matches(name, (*PREDICATES, *keyword_dict), n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"those of PS3.6 and {', '.join(PREDICATES)} are known"
            problems.append(f"{where}.when.{name}: not a DICOM keyword; {hint}")
        elif tag >> 16 < 0x0008 or tag >> 16 >= 0x7FE0:
            problems.append(f"{where}.when.{name}: not part of a data set before its pixels")
        elif dictionary_VR(tag) == "SQ":
            problems.append(f"{where}.when.{name}: a sequence, which no pattern can match")
    return problems
