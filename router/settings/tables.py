"""The tables of the configuration file and their keys. `docs/configuration.md` lists every one; a test compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from router.core.digest import Algorithm
from router.core.drift import Limits
from router.core.instance import ROUTING_KEYWORDS
from router.core.rules import PREDICATES, Rule, RuleBook
from router.settings.notify import NotifySettings, OptionalUrl
from router.settings.values import (
    AETitle,
    ByteCount,
    FilePath,
    Globs,
    Names,
    Network,
    Port,
    ProcessCount,
    Seconds,
    Table,
    ledger_url,
    tuple_of,
)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file as it was when it was read."""

    path: Path
    text: str


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
    wire: Literal["fast", "pynetdicom"] = "fast"


class SpoolSettings(Table):
    """[spool]: bytes on disk."""

    path: FilePath = Path("var/spool")
    free_byte_count_min: ByteCount = 2 * 2**30
    """Below this: 0xA700; it resumes by itself."""
    retention_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 86400
    """Bytes are kept this long after the last delivery."""
    verify_after_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 600
    """A file received less than so long ago, and not touched since, is sent without computing its digest again; 0: none."""
    digest: Algorithm = "blake3"
    """By what received data sets are hashed; "sha256" where functions must be FIPS-approved, at four times the cost."""


class LedgerSettings(Table):
    """[ledger]: the one record of what is owed and done."""

    url: Annotated[str, AfterValidator(ledger_url)] = "sqlite:///var/ledger.db"
    retention_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Rows are kept this long after an instance's bytes were freed; None: for ever."""


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


class TrustedProxySettings(Table):
    """web.trusted_proxy: a reverse proxy in front of the pages."""

    hosts: Annotated[tuple[Network, ...], BeforeValidator(tuple_of), Field(min_length=1)]
    """Where it speaks from; nobody else's headers are believed."""
    user_header: str = ""
    """Who has signed in at the proxy; empty: people sign in here, and the proxy only tells their addresses."""
    role_header: str = ""
    """viewer or operator."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.user_header) != bool(self.role_header):
            raise ValueError("user_header and role_header go together")
        return self


class SummarySettings(Table):
    """[summary]: one report on all images of a study, where a rule's results ask for "study-summary"."""

    quiet_s: Seconds = 300
    """It is made when no image of the study has come for so long."""


class DriftSettings(Table):
    """[drift]: from when on the scores of a finding count as moved; see core.drift."""

    recent_days: Annotated[int, Field(ge=1, le=90)] = 7
    """A week, so that each weekday is in it."""
    reference_days: Annotated[int, Field(ge=1, le=730)] = 28
    """So many days before these."""
    image_count_min: Annotated[int, Field(ge=20)] = 100
    """In each window, of one calling AE title; with fewer nothing is said."""
    psi_min: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.2
    chance_max: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.01
    """Of all comparisons of one classifier together."""

    def limits(self) -> Limits:
        """As core.drift wants them."""
        return Limits(**self.model_dump())


class WebSettings(Table):
    """[web]: dashboard, metrics, health."""

    host: str = "127.0.0.1"
    """Anything but this machine needs users, or a trusted proxy that knows them."""
    port: Port = 8080
    certificate_file: FilePath | None = None
    key_file: FilePath | None = None
    users_file: FilePath = Path("var/users.json")
    """Written by `router user`."""
    session_idle_s: Seconds = 1800
    session_age_max_s: Seconds = 43200
    metrics_hosts: Annotated[tuple[Network, ...], BeforeValidator(tuple_of)] = ()
    """Who may ask for /metrics and /health; empty: anybody who reaches the port."""
    connections_max: Annotated[int, Field(ge=1, le=10000)] = 200
    """A browser opens up to six. For one more, the one that waits for a request the longest is closed."""
    connections_per_peer_max: Annotated[int, Field(ge=1, le=10000)] = 50
    """Of one address, unless it is a trusted proxy's."""
    request_timeout_s: Seconds = 10
    """For the head of a request to come, from the connection or the answer before, and for a TLS handshake."""
    answer_timeout_s: Seconds = 20
    """Of an answer, what 16 kB/s would carry must have been taken in each such time."""
    trusted_proxy: TrustedProxySettings | None = None
    public_url: OptionalUrl = ""
    """Where people reach the pages; links in notifications begin with it, and there are none without it."""

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class ViewerSettings(Table):
    """[viewer]: radiographs on the pages. Each is decoded by a process of its own, which these bound."""

    side_max: Annotated[int, Field(ge=64, le=4096)] = 1024
    """Pixels of a picture's longest side; who wants all of them asks on the page."""
    time_limit_s: Seconds = 30
    """Then its process is killed: somebody waits for it."""
    memory_byte_count_max: ByteCount = 2 * 2**30
    """Address space of its process beyond what it has after start."""
    cache_byte_count_max: ByteCount = 64 * 2**20
    """Pictures kept in the node's memory for the next look."""


class SyslogSettings(Table):
    """audit.syslog: where audit messages go besides the files, by syslog over TLS (RFC 5425)."""

    host: str
    port: Port = 6514
    ca_file: FilePath | None = None
    """Of whoever signed the receiver's certificate; without it those that this machine trusts."""
    certificate_file: FilePath | None = None
    key_file: FilePath | None = None


class AuditSettings(Table):
    """[audit]: who looked at what and who did what (PS3.15 A.5)."""

    folder: FilePath = Path("var/audit")
    file_byte_count_max: ByteCount = 64 * 2**20
    file_age_max_s: Seconds = 86400
    retention_days: Annotated[int, Field(ge=1, le=36525)] = 2192
    """Files are kept this long after their last message: six years."""
    site_id: str = ""
    """AuditEnterpriseSiteID of every message."""
    syslog: SyslogSettings | None = None


class TracesSettings(Table):
    """[traces]: OpenTelemetry, one trace for each image; needs the extra `otel`."""

    endpoint: OptionalUrl = ""
    """Where spans are sent by OTLP over HTTP; empty: nowhere."""
    timeout_s: Seconds = 10
    """For the collector to take a batch; then it is tried again later."""


class LogSettings(Table):
    """[log]: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class ClassifierSettings(Table):
    """[classifiers.NAME]: keys common to all types; the rest belongs to the type and is in `options`."""

    name: str
    type: str
    processes: ProcessCount = "auto"
    """One thread each. "auto": as many as work asks for, up to the number of cores."""
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
    hosts: Annotated[tuple[Network, ...], BeforeValidator(tuple_of)] = ()
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
    summary: SummarySettings = SummarySettings()
    drift: DriftSettings = DriftSettings()
    web: WebSettings = WebSettings()
    viewer: ViewerSettings = ViewerSettings()
    audit: AuditSettings = AuditSettings()
    log: LogSettings = LogSettings()
    traces: TracesSettings = TracesSettings()
    default_deliver: Names = ()
    """Where an instance goes that no rule matches; empty: such an instance is refused with 0x0122."""
    classifiers: dict[str, ClassifierSettings] = {}
    destinations: dict[str, DestinationSettings] = {}
    peers: Annotated[tuple[PeerSettings, ...], BeforeValidator(tuple_of)] = ()
    notify: dict[str, NotifySettings] = {}
    rules: Annotated[tuple[RuleSettings, ...], BeforeValidator(tuple_of)] = ()
    _file: ConfigFile | None = PrivateAttr(None)

    @property
    def file(self) -> ConfigFile | None:
        """What these settings were read from; None when they come from no file."""
        return self._file

    def read_from(self, file: ConfigFile) -> Self:
        """The same, and where they come from."""
        settings = self.model_copy()
        settings._file = file
        return settings

    def rule_book(self) -> RuleBook:
        """The rules, with what else a plan depends on."""
        titled = {name: getattr(table.options, "ae_title", None) for name, table in self.destinations.items()}
        return RuleBook(
            rules=self.core_rules(),
            default_deliver=self.default_deliver,
            ae_titles={name: ae_title for name, ae_title in titled.items() if ae_title},
            summary_quiet_s=self.summary.quiet_s,
        )

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
