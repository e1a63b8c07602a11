"""Where audit messages go: to the files, durably, before whoever asked goes on; then to syslog, when it gets there."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
from dataclasses import dataclass, field

from router.audit.folder import AuditFolder
from router.audit.message import AuditMessage, Source, encode
from router.audit.syslog import SyslogSender, tls_context
from router.errors import ConfigError
from router.observe.log import emit
from router.settings import AuditSettings

#: Whoever waits for the disk longer than this is told that it failed.
_WAIT_MAX_S = 30.0


@dataclass(slots=True)
class _Entry:
    line: bytes
    done: threading.Event = field(default_factory=threading.Event)
    error: OSError | None = None


class AuditTrail:
    """One thread writes for all: those that wait at the same time share one fsync."""

    def __init__(self, folder: AuditFolder, *, source: Source, syslog: SyslogSender | None = None) -> None:
        self._folder = folder
        self._source = source
        self._syslog = syslog
        self._changed = threading.Condition()
        self._entries: list[_Entry] = []
        self._closing = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def record(self, message: AuditMessage) -> None:
        """Returns once the message is durable. Raises OSError when it is not: then what it speaks of should not happen."""
        entry = _Entry(encode(message, self._source))
        with self._changed:
            if self._closing:
                raise OSError("the audit trail is closed")
            self._entries.append(entry)
            self._changed.notify_all()
        if not entry.done.wait(_WAIT_MAX_S):
            raise OSError("the disk of the audit trail does not answer")
        if entry.error is not None:
            raise entry.error

    @property
    def trouble(self) -> str:
        """Why nothing can be written; empty when it can."""
        with self._changed:
            return self._trouble

    @property
    def syslog_lost_count(self) -> int:
        """Messages that syslog never got; 0 without syslog."""
        return self._syslog.lost_count if self._syslog else 0

    @property
    def syslog_waiting_count(self) -> int:
        """Messages that syslog has not got yet."""
        return self._syslog.waiting_count if self._syslog else 0

    @property
    def syslog_trouble(self) -> str:
        """Why syslog gets nothing; empty when it does."""
        return self._syslog.trouble if self._syslog else ""

    def close(self) -> None:
        """Writes what waits. May be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_WAIT_MAX_S)
        if self._syslog is not None:
            self._syslog.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._entries or self._closing)
                entries, self._entries = self._entries, []
                if not entries:
                    return
            error: OSError | None = None
            try:
                self._folder.append([entry.line for entry in entries])
            except OSError as caught:
                error = caught
            self._tell(error)
            for entry in entries:
                entry.error = error
                entry.done.set()
                if self._syslog is not None and error is None:
                    self._syslog.offer(entry.line)

    def _tell(self, error: OSError | None) -> None:
        trouble = "" if error is None else error.strerror or type(error).__name__
        with self._changed:
            news, self._trouble = bool(trouble) and not self._trouble, trouble
        if news:
            emit("audit.failed", level=logging.ERROR, reason=trouble)


def open_trail(settings: AuditSettings, *, ae_title: str) -> AuditTrail:
    """The trail of this configuration. Raises ConfigError when its folder or the files for TLS cannot be used."""
    folder = AuditFolder(
        settings.folder,
        byte_count_max=settings.file_byte_count_max,
        age_max_s=settings.file_age_max_s,
        retention_s=settings.retention_days * 86400.0,
    )
    try:
        folder.prepare()
    except OSError as error:
        raise ConfigError([f"audit.folder: {settings.folder} cannot be used: {error.strerror}"]) from error
    syslog = None
    if (to := settings.syslog) is not None:
        try:
            context = tls_context(ca_file=to.ca_file, certificate_file=to.certificate_file, key_file=to.key_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError([f"audit.syslog: its certificates cannot be used: {error.strerror or error}"]) from error
        syslog = SyslogSender(host=to.host, port=to.port, context=context)
    source = Source(source_id=f"{ae_title}@{socket.gethostname()}", site_id=settings.site_id)
    return AuditTrail(folder, source=source, syslog=syslog)


def process_owner() -> str:
    """Whose process this is, by the operating system; in a container perhaps only a number."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"
