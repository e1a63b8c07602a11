"""Notifications by e-mail, through a mail server (SMTP) with STARTTLS or TLS."""

from __future__ import annotations

import contextlib
import smtplib
import socket
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from router.core.ports import Clock
from router.errors import NeverTold, NotTold
from router.notify.line import connected, tls_context
from router.notify.message import Message
from router.notify.secret import read_secret
from router.settings import EmailSettings

_WORDS_MAX = 200


class _Smtp(smtplib.SMTP):
    """On a connection that is there."""

    def __init__(self, line: socket.socket, host: str, port: int) -> None:
        self._line = line
        super().__init__(host, port, local_hostname=socket.gethostname() or "localhost")

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._line


class Mail:
    """`notify.channel.Channel` by SMTP."""

    def __init__(self, settings: EmailSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    @property
    def where(self) -> str:
        """For people and logs."""
        return f"e-mail by {self._settings.host}:{self._settings.port}"

    def check(self) -> None:
        """Raises NotTold when the password or a certificate is not there."""
        self._password()
        tls_context(self._settings.ca_file)

    def send(self, message: Message) -> str:
        """Returns what the server remarked, once it has taken the message for one recipient or more. Raises NotTold, NeverTold."""
        password, mail, to = self._password(), self._mail(message), self._settings
        with connected(to.host, to.port, timeout_s=to.timeout_s) as line:
            context = tls_context(to.ca_file) if to.tls != "none" else None
            wrapped = context.wrap_socket(line, server_hostname=to.host) if context and to.tls == "tls" else line
            try:
                server = _Smtp(wrapped, to.host, to.port)
                if context and to.tls == "starttls":
                    server.starttls(context=context)
                if to.user:
                    server.login(to.user, password)
                refused = server.send_message(mail, to.from_address, list(to.to))
            except smtplib.SMTPException as error:
                raise _refused(error) from error
            with contextlib.suppress(OSError):  # it has the message: how it takes leave must not make a second one
                server.quit()
        return f"not taken for {', '.join(refused)}" if refused else ""

    def _password(self) -> str:
        return read_secret(self._settings.password_from) if self._settings.password_from else ""

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage(policy=SMTP)
        mail["Subject"] = message.subject
        mail["From"] = self._settings.from_address
        mail["To"] = ", ".join(self._settings.to)
        mail["Date"] = format_datetime(self._clock.now())
        # The same for each copy, so that mail programs show one.
        mail["Message-ID"] = f"<{message.uid}@{self._settings.from_address.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence note comes back
        mail.set_content(message.text)
        return mail


def _refused(error: smtplib.SMTPException) -> NotTold | NeverTold:
    match error:
        case smtplib.SMTPAuthenticationError():
            return _with_words(
                NotTold(f"the mail server refuses user or password ({error.smtp_code})"), error.smtp_error
            )
        case smtplib.SMTPRecipientsRefused():
            codes = sorted({code for code, _ in error.recipients.values()})
            kind = NeverTold if all(code >= 500 for code in codes) else NotTold
            words = b"; ".join(said for _, said in error.recipients.values())
            told = f"the mail server refuses every recipient ({', '.join(map(str, codes))})"
            return _with_words(kind(told), words)
        case smtplib.SMTPResponseException():
            kind = NeverTold if error.smtp_code >= 500 else NotTold
            return _with_words(kind(f"the mail server refuses it ({error.smtp_code})"), error.smtp_error)
        case smtplib.SMTPNotSupportedError():
            return NotTold("the mail server offers no STARTTLS, or no way to sign in: port and tls must agree")
        case _:
            return NotTold(f"the mail server ended the conversation ({type(error).__name__})")


def _with_words(error: NotTold | NeverTold, words: bytes | str) -> NotTold | NeverTold:
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    error.add_note(" ".join(text.split())[:_WORDS_MAX])
    return error
