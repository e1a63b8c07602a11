"""The configuration: one TOML file, read once, frozen, refused whole when wrong.

`load` gathers every problem before it raises ConfigError, each with its key path and, for a misspelt key or a dangling
name, the nearest right one. `docs/configuration.md` lists every setting; a test compares.
"""

from __future__ import annotations

from router.settings.load import load, parse
from router.settings.notify import (
    DestinationDownSettings,
    DiskShortSettings,
    EmailSettings,
    FindingNoticeSettings,
    NotifySettings,
    TaskFailedSettings,
    WebhookSettings,
)
from router.settings.tables import (
    AuditSettings,
    ClassifierSettings,
    CommitmentSettings,
    DestinationSettings,
    LedgerSettings,
    LogSettings,
    NodeSettings,
    PeerSettings,
    RuleSettings,
    Settings,
    SpoolSettings,
    SyslogSettings,
    TrustedProxySettings,
    ViewerSettings,
    WebSettings,
)
from router.settings.values import (
    PROCESS_COUNT_MAX,
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
)

__all__ = [
    "PROCESS_COUNT_MAX",
    "AETitle",
    "AuditSettings",
    "ByteCount",
    "ClassifierSettings",
    "CommitmentSettings",
    "DestinationDownSettings",
    "DestinationSettings",
    "DiskShortSettings",
    "EmailSettings",
    "FilePath",
    "FindingNoticeSettings",
    "Globs",
    "LedgerSettings",
    "LogSettings",
    "Names",
    "Network",
    "NodeSettings",
    "NotifySettings",
    "PeerSettings",
    "Port",
    "ProcessCount",
    "RuleSettings",
    "Seconds",
    "Settings",
    "SpoolSettings",
    "SyslogSettings",
    "Table",
    "TaskFailedSettings",
    "TrustedProxySettings",
    "ViewerSettings",
    "WebSettings",
    "WebhookSettings",
    "load",
    "parse",
]
