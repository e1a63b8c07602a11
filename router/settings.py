"""The configuration: one TOML file, read once, frozen, refused whole when wrong.

`load` gathers every problem before it raises ConfigError, each with its key path and, for a misspelt key or a dangling
name, the nearest right one. `docs/configuration.md` lists every setting; a test compares.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from router import registry
from router.core.instance import ROUTING_KEYWORDS
from router.core.rules import PREDICATES, Rule
from router.errors import ConfigError

_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def _byte_count(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", value)
    if not match or match[2] not in _UNITS:
        raise ValueError(f'not a size: write a number of bytes or a text like "4 GiB" (units: {", ".join(_UNITS)})')
    return int(float(match[1]) * _UNITS[match[2]])


def _process_count(value: object) -> int:
    if value == "auto":
        # What this process may use, which in a container or under taskset is less than the machine has.
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(available, PROCESS_COUNT_MAX)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= PROCESS_COUNT_MAX:
        raise ValueError(f'must be a whole number from 1 to {PROCESS_COUNT_MAX}, or "auto"')
    return value


def _ae_title(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", value) or not value.strip():
        raise ValueError("not an AE title: 1 to 16 printable ASCII characters without a backslash, not only spaces")
    return value.strip()


def _network(value: object) -> object:
    try:
        if isinstance(value, str):
            return ip_network(value, strict=False)
    except ValueError:
        pass
    raise ValueError('not a network or an address such as "10.1.2.0/24"')


def _ledger_url(value: str) -> str:
    if not value.startswith(("sqlite:///", "postgresql://")):
        raise ValueError("not a ledger: write sqlite:///PATH or postgresql://USER@HOST/NAME")
    if re.match(r"postgresql://[^/@]*:[^/@]*@", value):
        # Raised without the value, which `_lines` would show.
        raise PydanticCustomError("secret", "holds a password: give it by PGPASSWORD or PGPASSFILE instead")
    return value


#: Of one classifier.
PROCESS_COUNT_MAX = 64
#: A number of processes; "auto" is one for each processor core that may be used.
ProcessCount = Annotated[int, BeforeValidator(_process_count)]
#: A number of bytes, or a text with a unit such as "4 GiB".
ByteCount = Annotated[int, BeforeValidator(_byte_count), Field(ge=0)]
#: PS3.5 6.2, VR AE: 1 to 16 characters, no backslash or control characters, not only spaces.
AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class Table(BaseModel):
    """A TOML table: unknown keys are refused, values are not converted. Base of the plugins' own `Settings`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


def _paths(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


FilePath = Annotated[Path, BeforeValidator(_paths)]


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_tuple)]


def _globs(value: object) -> object:
    if value == []:
        raise ValueError("an empty list never matches")
    if not isinstance(value, str | list):
        raise ValueError("must be text or a list of texts")  # noqa: TRY004 - the one that pydantic gathers
    return (value,) if isinstance(value, str) else tuple(value)


Globs = Annotated[tuple[str, ...], BeforeValidator(_globs)]


class NodeSettings(Table):
    """[node]: what peers see of us."""

    ae_title: AETitle = "ROUTER"
    """Called AE title; others are rejected unless any_called_ae."""
    host: str = "0.0.0.0"  # noqa: S104 - a DICOM node is there to be reached; peers and firewalls narrow it
    port: Port = 11112
    any_called_ae: bool = False
    associations_max: Annotated[int, Field(ge=1, le=10000)] = 200
    associations_per_peer_max: Annotated[int, Field(ge=1, le=10000)] = 100
    """Of one address, so that one runaway modality cannot shut the others out."""
    pdu_byte_count_max: Annotated[int, Field(ge=4096, le=2**24)] = 131072
    dataset_byte_count_max: ByteCount = 4 * 2**30
    idle_timeout_s: Seconds = 60
    pdu_timeout_s: Seconds = 10
    """A PDU that has begun must be whole within this (plus its length at 16 kB/s)."""
    drain_timeout_s: Seconds = 10
    """SIGTERM: how long associations and tasks in work may take to end."""
    wire: Literal["pynetdicom"] = "pynetdicom"


class SpoolSettings(Table):
    """[spool]: bytes on disk."""

    path: FilePath = Path("var/spool")
    free_byte_count_min: ByteCount = 2 * 2**30
    """Below this: 0xA700; it resumes by itself."""
    retention_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 86400
    """Bytes are kept this long after the last delivery."""


class LedgerSettings(Table):
    """[ledger]: the one record of what is owed and done."""

    url: Annotated[str, AfterValidator(_ledger_url)] = "sqlite:///var/ledger.db"


class CommitmentSettings(Table):
    """[commitment]: what we answer to peers that ask us for Storage Commitment."""

    enabled: bool = True
    when: Literal["durable", "delivered"] = "durable"
    """What is promised: see core.commitment.Promise."""
    give_up_s: Seconds = 86400
    """when = "delivered": what is not delivered after this time is reported as failed."""
    linger_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 1
    """The report goes out on the association of the request when the peer keeps that open for so long; 0: never."""
    report_for_s: Seconds = 259200
    """A peer that cannot be reached is tried this long; then the report waits until it asks again."""


class WebSettings(Table):
    """[web]: dashboard, metrics, health."""

    host: str = "127.0.0.1"
    port: Port = 8080


class LogSettings(Table):
    """[log]: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class ClassifierSettings(Table):
    """[classifiers.NAME]: keys common to all types; the rest belongs to the type and is in `options`."""

    name: str
    type: str
    processes: ProcessCount = 1
    """Each looks at one image at a time, with one thread."""
    time_limit_s: Seconds = 120
    """One image, decoding included; then its process is killed."""
    memory_byte_count_max: ByteCount = 8 * 2**30
    """Address space of its process beyond what it has after start; a decompression bomb ends there."""
    options: Any = None
    """The type's own `Settings`."""


class DestinationSettings(Table):
    """[destinations.NAME]: keys common to all types; the rest belongs to the type and is in `options`."""

    name: str
    type: str
    associations_max: Annotated[int, Field(ge=1, le=64)] = 2
    batch_max: Annotated[int, Field(ge=1, le=1000)] = 32
    """Instances claimed at once for one association; one lease covers them."""
    retry_first_s: Seconds = 1
    retry_cap_s: Seconds = 300
    """Longest wait between two tries of one instance."""
    probe_cap_s: Seconds = 30
    """Longest wait between two tries of a destination that is down."""
    options: Any = None


class PeerSettings(Table):
    """[[peers]]: once one is listed, only listed calling AE titles are accepted."""

    ae_title: AETitle
    hosts: Annotated[tuple[Network, ...], BeforeValidator(_tuple)] = ()
    """Networks or addresses it may call from; empty: any."""
    port: Port | None = None
    """Where it listens for reports on storage commitment, at the address that it called from."""


class RuleSettings(Table):
    """[[rules]]: see core.rules."""

    name: Annotated[str, Field(min_length=1)]
    when: dict[str, Globs] = {}
    classify: Names = ()
    deliver: Names = ()
    results: Names = ()
    results_to: Names = ()


class Settings(Table):
    """The whole file."""

    node: NodeSettings = NodeSettings()
    spool: SpoolSettings = SpoolSettings()
    ledger: LedgerSettings = LedgerSettings()
    commitment: CommitmentSettings = CommitmentSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    default_deliver: Names = ()
    """Where an instance goes that no rule matches; empty: such an instance is refused with 0x0122."""
    classifiers: dict[str, ClassifierSettings] = {}
    destinations: dict[str, DestinationSettings] = {}
    peers: Annotated[tuple[PeerSettings, ...], BeforeValidator(_tuple)] = ()
    rules: Annotated[tuple[RuleSettings, ...], BeforeValidator(_tuple)] = ()

    def core_rules(self) -> tuple[Rule, ...]:
        """The rules as `core.rules.plan_for` wants them."""
        return tuple(
            Rule(
                name=rule.name,
                when=rule.when,
                classify=rule.classify,
                deliver=rule.deliver,
                results=rule.results,
                results_to=rule.results_to,
            )
            for rule in self.rules
        )

    def header_keywords(self) -> frozenset[str]:
        """DICOM keywords the routing header must hold: the fixed ones and those that rules name."""
        named = {name for rule in self.rules for name in rule.when if name not in PREDICATES}
        return frozenset(ROUTING_KEYWORDS) | named


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
    return parse(data)


def parse(data: Mapping[str, Any]) -> Settings:
    """The settings in a TOML document already read. Raises ConfigError with every problem found."""
    problems: list[str] = []
    plugins = {
        "classifiers": _plugins(data.get("classifiers", {}), "classifiers", ClassifierSettings, problems),
        "destinations": _plugins(data.get("destinations", {}), "destinations", DestinationSettings, problems),
    }
    settings: Settings | None = None
    try:
        settings = Settings.model_validate({**data, **plugins})
    except ValidationError as error:
        problems += _lines(error, (), Settings)
    problems += _dangling(data)
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


def _dangling(data: Mapping[str, Any]) -> list[str]:
    """Names that refer to nothing, and rules that cannot do what they say.

    Works on the document as written, so that these are reported together with wrong types elsewhere; what has a wrong
    type itself is passed over here, because it has been reported.
    """
    problems: list[str] = []
    destinations = _strings(data.get("destinations"))
    classifiers = _strings(data.get("classifiers"))
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
        if rule.get("results_to") and not rule.get("results"):
            problems.append(f"{where}.results_to: needs results: there is nothing to send")
        if rule.get("results") and not rule.get("results_to"):
            problems.append(f"{where}.results: needs results_to: where should they go?")
        if not (rule.get("classify") or rule.get("deliver")):
            problems.append(f"{where}: has neither classify nor deliver: it would take instances and do nothing")
        problems += _unknown_predicates(where, _strings(rule.get("when")))
    return problems


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
