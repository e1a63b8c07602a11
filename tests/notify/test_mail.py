"""E-mail against a real mail server, with STARTTLS, TLS and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.errors import NeverTold, NotTold
from router.notify.mail import Mail
from router.notify.message import Writer
from router.settings import EmailSettings
from tests.ledger.made import START, FakeClock
from tests.notify.servers import HOST, PASSWORD, USER, Mails, dripping

MESSAGE = Writer(ae_title="RÖNTGEN", public_url="https://router.example").test(name="night", now=START)
ADDRESSES = {"from_address": "router@hospital.example", "to": ["it@hospital.example", "dr@hospital.example"]}


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)
    return {"user": USER, "password_from": "env:MAIL_PASSWORD"}


def mail(port: int, **settings: Any) -> Mail:
    return Mail(EmailSettings.model_validate({"host": HOST, "port": port, **ADDRESSES, **settings}), clock=FakeClock())


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_it_goes_encrypted_and_signed_in_under_a_number_that_stays_the_same(
    tls: str, certificate: Path, signed_in: dict[str, Any]
) -> None:
    with Mails(certificate, tls=tls) as server:
        channel = mail(server.port, tls=tls, ca_file=str(certificate), **signed_in)
        assert [channel.send(MESSAGE), channel.send(MESSAGE)] == ["", ""]
    first, second = server.taken
    assert server.signed_in == 2
    assert server.recipients[0] == ADDRESSES["to"]
    assert first["Subject"] == "RÖNTGEN: a test notification"
    assert first["Message-ID"] == second["Message-ID"] == f"<{MESSAGE.uid}@hospital.example>"
    assert first["Auto-Submitted"] == "auto-generated"
    assert "https://router.example/notifications" in first.get_content()


def test_without_a_certificate_that_is_trusted_nothing_is_said(certificate: Path, signed_in: dict[str, Any]) -> None:
    with Mails(certificate) as server, pytest.raises(NotTold, match="certificate is not trusted"):
        mail(server.port, **signed_in).send(MESSAGE)
    assert (server.signed_in, server.taken) == (0, [])


def test_a_server_without_starttls_gets_no_password(certificate: Path, signed_in: dict[str, Any]) -> None:
    with Mails(certificate, tls="none") as server, pytest.raises(NotTold, match="offers no STARTTLS"):
        mail(server.port, ca_file=str(certificate), **signed_in).send(MESSAGE)
    assert (server.signed_in, server.taken) == (0, [])


def test_a_wrong_password_may_be_right_tomorrow(
    certificate: Path, signed_in: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "wrong-0815")
    with Mails(certificate) as server, pytest.raises(NotTold, match="refuses user or password") as told:
        mail(server.port, ca_file=str(certificate), **signed_in).send(MESSAGE)
    assert "wrong-0815" not in f"{told.value} {told.value.__notes__}"


def test_one_refused_recipient_is_remarked_and_all_refused_for_good_is_never_told(certificate: Path) -> None:
    it, dr = ADDRESSES["to"]
    with Mails(certificate, tls="none") as server:
        channel = mail(server.port, tls="none")
        server.refuse = {dr: "550 nobody here of that name"}
        assert channel.send(MESSAGE) == f"not taken for {dr}"
        assert server.recipients == [[it]]
        server.refuse |= {it: "550 nobody"}
        with pytest.raises(NeverTold, match="refuses every recipient") as never:
            channel.send(MESSAGE)
        assert "nobody here" in str(never.value.__notes__)
        server.refuse = {it: "451 later", dr: "550 nobody"}
        with pytest.raises(NotTold):
            channel.send(MESSAGE)
        server.refuse, server.answer = {}, "452 no room"
        with pytest.raises(NotTold, match="452"):
            channel.send(MESSAGE)
    assert len(server.taken) == 1


def test_a_server_that_drips_holds_nobody_up() -> None:
    with dripping() as port, pytest.raises(NotTold, match=r"did not finish within 0\.2 s"):
        mail(port, tls="none", timeout_s=0.2).send(MESSAGE)
