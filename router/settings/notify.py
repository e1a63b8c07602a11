"""[notify.NAME]: who is told of what, by webhook or e-mail."""

from __future__ import annotations

import re
from email.headerregistry import Address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from router.core.notices import (
    DiskTopic,
    DownTopic,
    FailedTopic,
    FindingTopic,
    Gathering,
    Subscription,
)
from router.settings.values import ByteCount, FilePath, Names, Port, Seconds, Table, tuple_of

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_Wait = Annotated[float, Field(ge=0, le=604800, allow_inf_nan=False)]


def _secret_source(value: str) -> str:
    if not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+", value):
        # Raised without the value, which `_lines` would show: somebody may have written the secret itself.
        raise PydanticCustomError("secret", 'must be "env:NAME" or "file:PATH": secrets are not in this file')
    return value


def web_address(value: str) -> str:
    """Validator: an http(s) address without a password."""
    if any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in value):
        raise PydanticCustomError("secret", "not a web address")
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise PydanticCustomError("secret", "must be an address such as https://HOST/PATH")
    if "@" in parts.netloc:
        raise PydanticCustomError("secret", "holds a user or a password: give it by headers_from instead")
    return value


def _optional_url(value: str) -> str:
    return web_address(value).rstrip("/") if value else value


def _mail_address(value: str) -> str:
    try:
        parsed = Address(addr_spec=value)
    except Exception as error:
        raise ValueError('not a mail address such as "it@hospital.example"') from error
    if not (parsed.username and parsed.domain and value.isascii() and value.isprintable()):
        raise ValueError('not a mail address such as "it@hospital.example"')
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value):
        raise ValueError("not the name of an HTTP header")
    return value


#: Where a secret is read from, each time it is needed: an environment variable or a file.
SecretSource = Annotated[str, AfterValidator(_secret_source)]
#: A web address, or nothing.
OptionalUrl = Annotated[str, AfterValidator(_optional_url)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
HeaderName = Annotated[str, AfterValidator(_header_name)]


class WebhookSettings(Table):
    """[notify.NAME.webhook]: JSON by POST."""

    url: Annotated[str, AfterValidator(web_address)] | None = None
    url_from: SecretSource | None = None
    """For addresses that are secrets themselves, as those of chat services are."""
    secret_from: SecretSource | None = None
    """Signs the body (Standard Webhooks)."""
    headers_from: dict[HeaderName, SecretSource] = {}
    """Header -> where its value comes from."""
    ca_file: FilePath | None = None
    timeout_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 10
    """For all of it, from the connection to the answer."""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_from is None):
            raise ValueError("needs url or url_from, and not both")
        if self.url is not None and self.headers_from and in_the_clear(self.url):
            raise ValueError("headers_from would travel in the clear: use https")
        return self


def in_the_clear(address: str) -> bool:
    """Whether others could read what is sent there."""
    parts = urlsplit(address)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


class EmailSettings(Table):
    """[notify.NAME.email]: through a mail server (SMTP)."""

    host: Annotated[str, Field(min_length=1)]
    port: Port = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: FilePath | None = None
    user: str = ""
    password_from: SecretSource | None = None
    from_address: MailAddress
    to: Annotated[tuple[MailAddress, ...], BeforeValidator(tuple_of), Field(min_length=1, max_length=100)]
    timeout_s: Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)] = 30

    @model_validator(mode="after")
    def _sign_in(self) -> Self:
        if bool(self.user) != (self.password_from is not None):
            raise ValueError("user and password_from go together")
        if self.user and self.tls == "none" and self.host not in _LOOPBACK:
            raise ValueError('the password would travel in the clear: tls must be "starttls" or "tls"')
        return self


class DestinationDownSettings(Table):
    """notify.NAME.destination_down."""

    after_s: _Wait = 600
    """It has been down for so long."""
    destinations: Names = ()
    and_up: bool = True
    """Also when it is back, if it was told that it was down."""


class DiskShortSettings(Table):
    """notify.NAME.disk_short."""

    free_byte_count_min: ByteCount | None = None
    """None: spool.free_byte_count_min, under which C-STORE is refused."""
    after_s: _Wait = 60
    and_enough: bool = True


class TaskFailedSettings(Table):
    """notify.NAME.task_failed."""

    kinds: Annotated[
        tuple[Literal["classify", "deliver", "commit", "report", "summarise"], ...], BeforeValidator(tuple_of)
    ] = ()
    targets: Names = ()
    gather_s: _Wait = 60
    """Others of the same kind and target that fail meanwhile share the message."""
    again_s: _Wait = 3600
    """Between two messages on the same kind and target, at least."""

    def topic(self) -> FailedTopic:
        """As the core wants it."""
        gathering = Gathering(first_s=self.gather_s, again_s=self.again_s)
        return FailedTopic(gathering=gathering, kinds=self.kinds, targets=self.targets)


class FindingNoticeSettings(Table):
    """[[notify.NAME.findings]]."""

    classifier: str
    labels: Names = ()
    """As the classifier writes them; empty: all."""
    score_min: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """None: the classifier's own operating point."""
    gather_s: _Wait = 60
    again_s: _Wait = 0

    def topic(self) -> FindingTopic:
        """As the core wants it."""
        gathering = Gathering(first_s=self.gather_s, again_s=self.again_s)
        return FindingTopic(
            classifier=self.classifier, gathering=gathering, labels=self.labels, score_min=self.score_min
        )


class NotifySettings(Table):
    """[notify.NAME]."""

    destination_down: DestinationDownSettings | None = None
    disk_short: DiskShortSettings | None = None
    task_failed: TaskFailedSettings | None = None
    findings: Annotated[tuple[FindingNoticeSettings, ...], BeforeValidator(tuple_of)] = ()
    webhook: WebhookSettings | None = None
    email: EmailSettings | None = None
    attempts_max: Annotated[int, Field(ge=1, le=1000)] = 24
    """Then it has failed, and an operator sees it."""
    retry_first_s: Seconds = 10
    retry_cap_s: Seconds = 900

    @model_validator(mode="after")
    def _something_to_somebody(self) -> Self:
        if (self.webhook is None) == (self.email is None):
            raise ValueError("needs a webhook or an email table, and not both: two entries tell two places")
        if not (self.destination_down or self.disk_short or self.task_failed or self.findings):
            raise ValueError("tells nothing: needs destination_down, disk_short, task_failed or findings")
        return self

    def _topics(self) -> list[FailedTopic | FindingTopic]:
        """Those whose facts are gathered."""
        return [one.topic() for one in (self.task_failed, *self.findings) if one is not None]

    def subscription(self, name: str, *, spool_free_byte_count_min: int) -> Subscription:
        """As the core wants it."""
        down, disk, failed = self.destination_down, self.disk_short, self.task_failed
        short = disk.free_byte_count_min if disk is not None else None
        return Subscription(
            name=name,
            down=DownTopic(after_s=down.after_s, destinations=down.destinations, and_up=down.and_up) if down else None,
            disk=DiskTopic(
                free_byte_count_min=spool_free_byte_count_min if short is None else short,
                after_s=disk.after_s,
                and_enough=disk.and_enough,
            )
            if disk
            else None,
            failed=failed.topic() if failed else None,
            findings=tuple(one.topic() for one in self.findings),
        )

    def topics(self) -> list[str]:
        """What it tells of, in words."""
        down, disk, failed = self.destination_down, self.disk_short, self.task_failed
        told = []
        if down is not None:
            told.append(f"{', '.join(down.destinations) or 'a destination'} down for {down.after_s:g} s")
        if disk is not None:
            told.append("the disk of the spool short of room")
        if failed is not None:
            told.append(" ".join(["a failed task:", ", ".join(failed.kinds), ", ".join(failed.targets)]).strip(" :"))
        for one in self.findings:
            above = "at its operating point" if one.score_min is None else f"at {one.score_min:g}"
            told.append(f"{', '.join(one.labels) or 'any finding'} of {one.classifier} {above} or more")
        return told

    @property
    def longest_wait_s(self) -> float:
        """The longest that a message of it ever waits for its time."""
        gathered = [one.gathering.first_s + one.gathering.again_s for one in self._topics()]
        return max([self.retry_cap_s, *gathered])
