"""Webhooks against a real web server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from router.errors import NotTold
from router.notify.message import Writer
from router.notify.webhook import Webhook
from router.settings import WebhookSettings
from tests.ledger.made import START, FakeClock
from tests.notify.servers import HOST, Hooks, dripping
from tests.peers import free_port

MESSAGE = Writer(ae_title="ROUTER", public_url="https://router.example").test(name="night", now=START)
SECRET = base64.b64encode(b"k" * 24).decode()


def webhook(**settings: Any) -> Webhook:
    return Webhook(WebhookSettings.model_validate(settings), clock=FakeClock())


def test_the_body_is_json_and_signed_as_standard_webhooks_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"whsec_{SECRET}\n")
    monkeypatch.setenv("HOOK_TOKEN", "Bearer t-4711")
    with Hooks() as hooks:
        webhook(
            url=f"http://{HOST}:{hooks.port}/hook?x=1",
            secret_from=f"file:{tmp_path / 'secret'}",
            headers_from={"Authorization": "env:HOOK_TOKEN"},
        ).send(MESSAGE)
    ((headers, body),) = hooks.taken
    assert hooks.paths == ["/hook?x=1"]
    assert json.loads(body)["event"] == "test"
    assert headers["authorization"] == "Bearer t-4711"
    assert headers["webhook-id"] == headers["idempotency-key"] == MESSAGE.uid
    signed = f"{MESSAGE.uid}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"k" * 24, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert int(headers["webhook-timestamp"]) == int(START.timestamp())


@pytest.mark.parametrize("status", [302, 404, 500])
def test_anything_but_2xx_is_told_with_the_servers_words_beside_and_redirects_are_not_followed(status: int) -> None:
    with Hooks() as other, Hooks() as hooks:
        hooks.status, hooks.location = status, f"http://{HOST}:{other.port}/"
        hooks.answer = b"Not\r\n here " + b"x" * 100_000
        with pytest.raises(NotTold, match=f"it answered {status}") as told:
            webhook(url=f"http://{HOST}:{hooks.port}/").send(MESSAGE)
        assert other.taken == []
    (words,) = told.value.__notes__
    assert words.startswith("Not here x")
    assert len(words) <= 200
    assert "Not here" not in str(told.value)


def test_https_checks_the_certificate(certificate: Path) -> None:
    with Hooks(certificate=certificate) as hooks:
        url = f"https://localhost:{hooks.port}/"
        with pytest.raises(NotTold, match="certificate is not trusted"):
            webhook(url=url).send(MESSAGE)
        assert hooks.taken == []
        webhook(url=url, ca_file=str(certificate)).send(MESSAGE)
    assert len(hooks.taken) == 1


def test_a_server_that_drips_and_one_that_is_not_there_hold_nobody_up() -> None:
    with dripping() as port, pytest.raises(NotTold, match=r"did not finish within 0\.2 s"):
        webhook(url=f"http://{HOST}:{port}/", timeout_s=0.2).send(MESSAGE)
    with pytest.raises(NotTold, match="nothing listens"):
        webhook(url=f"http://{HOST}:{free_port()}/").send(MESSAGE)


def test_what_is_no_web_server_is_told(certificate: Path) -> None:
    with Hooks(certificate=certificate) as hooks, pytest.raises(NotTold):
        webhook(url=f"http://{HOST}:{hooks.port}/").send(MESSAGE)


@pytest.mark.parametrize("secret", ["", "two\nlines", "whsec_no base64!", "ümlaut"])
def test_a_secret_that_cannot_be_used_is_told_at_start_and_never_quoted(secret: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(secret)
    with pytest.raises(NotTold) as told:
        webhook(url=f"http://{HOST}:1/", secret_from=f"file:{path}").check()
    assert not secret or secret not in str(told.value)
    with pytest.raises(NotTold, match="cannot be read"):
        webhook(url=f"http://{HOST}:1/", secret_from=f"file:{path}.gone").check()


def test_an_address_may_be_a_secret_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with Hooks() as hooks:
        monkeypatch.setenv("HOOK_URL", f"http://{HOST}:{hooks.port}/T000/B000/hush")
        hidden = webhook(url_from="env:HOOK_URL")
        hidden.send(MESSAGE)
    assert hooks.paths == ["/T000/B000/hush"]
    assert "hush" not in hidden.where
    monkeypatch.setenv("HOOK_URL", "hush")
    with pytest.raises(NotTold, match="holds no address") as told:
        hidden.check()
    assert "hush" not in str(told.value)
