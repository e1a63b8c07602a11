"""Notifications by webhook: JSON by HTTP POST, signed as Standard Webhooks says (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
from urllib.parse import urlsplit

from router import __version__
from router.core.ports import Clock
from router.errors import NotTold
from router.notify.line import connected, tls_context
from router.notify.message import Message
from router.notify.secret import read_secret, signing_key
from router.settings import WebhookSettings
from router.settings.notify import in_the_clear, web_address

#: So much of an answer is read, for its words; they are kept with the task.
_ANSWER_BYTE_COUNT_MAX = 1000
_WORDS_MAX = 200


class Webhook:
    """`notify.channel.Channel` by HTTP."""

    def __init__(self, settings: WebhookSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    @property
    def where(self) -> str:
        """For people and logs: without the path, which may be a secret."""
        return f"webhook {urlsplit(self._settings.url).hostname}" if self._settings.url else "webhook"

    def check(self) -> None:
        """Raises NotTold when a secret or a certificate is not there."""
        self._headers(self._url(), b"", uid="")
        tls_context(self._settings.ca_file)

    def send(self, message: Message) -> str:
        """Returns nothing of interest once the answer is 2xx. Raises NotTold. Redirects are not followed."""
        url = self._url()
        parts, body = urlsplit(url), json.dumps(message.data, ensure_ascii=False).encode()
        headers = self._headers(url, body, uid=message.uid)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        with connected(host, port, timeout_s=self._settings.timeout_s) as line:
            connection: http.client.HTTPConnection
            if secure:
                context = tls_context(self._settings.ca_file)
                connection = http.client.HTTPSConnection(host, port, context=context)
                connection.sock = context.wrap_socket(line, server_hostname=host)
            else:
                connection = http.client.HTTPConnection(host, port)
                connection.sock = line
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", target, body=body, headers=headers)
                answer = connection.getresponse()
                words = answer.read(_ANSWER_BYTE_COUNT_MAX)
            except http.client.HTTPException as error:
                raise NotTold(f"{host}:{port} does not answer as a web server ({type(error).__name__})") from error
            finally:
                connection.close()
        if not 200 <= answer.status < 300:
            raise _refused(answer.status, words)
        return ""

    def _url(self) -> str:
        if self._settings.url is not None:
            return self._settings.url
        url = read_secret(self._settings.url_from or "")
        try:
            web_address(url)
        except ValueError as error:
            raise NotTold(f"{self._settings.url_from} holds no address such as https://HOST/PATH") from error
        if self._settings.headers_from and in_the_clear(url):
            raise NotTold("headers_from would travel in the clear: use https")
        return url

    def _headers(self, url: str, body: bytes, *, uid: str) -> dict[str, str]:
        second = str(int(self._clock.now().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"dicom-ai-router/{__version__}",
            "Idempotency-Key": uid,
            "webhook-id": uid,
            "webhook-timestamp": second,
            "Connection": "close",
        }
        if self._settings.secret_from is not None:
            key = signing_key(read_secret(self._settings.secret_from))
            digest = hmac.digest(key, b".".join([uid.encode(), second.encode(), body]), hashlib.sha256)
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return {**headers, **{name: read_secret(source) for name, source in self._settings.headers_from.items()}}


def _refused(status: int, words: bytes) -> NotTold:
    told = f"it answered {status} {http.client.responses.get(status, '')}".rstrip()
    error = NotTold(f"{told}: redirects are not followed" if 300 <= status < 400 else told)
    text = " ".join("".join(c if c.isprintable() else " " for c in words.decode("utf-8", "replace")).split())
    if text:
        error.add_note(text[:_WORDS_MAX])
    return error
