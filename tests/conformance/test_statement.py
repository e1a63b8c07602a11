"""The conformance statement: what is kept in docs/ is what the code says, and its tables are the ones that the code decides by."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from router import settings
from router.conformance.answers import heard
from router.conformance.samples import KINDS
from router.conformance.statement import statement
from router.core.instance import InstanceKind
from router.core.ports import Delivered
from router.deliver.answers import outcome_of
from router.deliver.command import Response
from router.dimse import status
from router.errors import TransientError
from tests.peers import ROOT

_STORING = ("receive/intake.py", "receive/header.py", "receive/walk.py", "receive/window.py", "dimse/exchange.py")


def made_for(**tables: object) -> str:
    return statement(settings.parse({"default_deliver": ["pacs"], **_DESTINATION, **tables}))


_DESTINATION = {"destinations": {"pacs": {"type": "dicom", "ae_title": "PACS", "host": "192.0.2.1", "port": 104}}}


def test_the_statement_in_docs_is_that_of_the_configuration_that_comes_with_the_project() -> None:
    kept = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
    made = statement(settings.load(ROOT / "config/router.toml"))
    assert kept == made, "write it anew: router conformance --output docs/conformance.md"


def test_the_statement_follows_the_configuration() -> None:
    plain = made_for()
    changed = made_for(
        node={"ae_title": "GATE", "pdu_byte_count_max": 50000, "associations_max": 7, "wire": "pynetdicom"},
        peers=[{"ae_title": "CR_ROOM1", "hosts": ["10.1.2.0/24"], "port": 105}],
        commitment={"enabled": False},
        rules=[{"name": "all", "deliver": ["pacs"]}],
    )
    assert "any calling AE title, from any address" in plain
    assert "| Storage Commitment Push Model | `1.2.840.10008.1.20.1` | no | yes |" in plain
    assert "calling AE titles `CR_ROOM1` from 10.1.2.0/24" in changed
    assert "announced as acceptor | 50000 bytes |" in changed
    assert "| Associations accepted at one time | 7 |" in changed
    assert "Asynchronous operations window, as acceptor | not granted" in changed
    assert "1.2.840.10008.1.20.1" not in changed, "neither side of storage commitment"
    assert "4.2.1 GATE" in changed


def test_every_kind_of_object_that_the_node_makes_is_in_the_statement() -> None:
    """«not-analysed» makes SRs; every other kind has the name of its builder, but for that of summaries."""
    kinds = {str(kind) for kind in InstanceKind} - {"original", "summary"} | {"study-summary", "not-analysed"}
    assert set(KINDS) == kinds


def _constants() -> Mapping[str, int]:
    return {name: value for name, value in vars(status).items() if name.isupper() and isinstance(value, int)}


def _used(*paths: str) -> set[int]:
    text = "".join((ROOT / "router" / path).read_text(encoding="utf-8") for path in paths)
    text += re.sub(r"^[A-Z_]+ = .*$", "", (ROOT / "router/core/admission.py").read_text(encoding="utf-8"), flags=re.M)
    return {value for name, value in _constants().items() if re.search(rf"\b{name}\b", text)}


def test_the_statuses_listed_for_c_store_are_those_in_the_code_that_answers() -> None:
    # exchange.py also answers what is no C-STORE.
    assert _used(*_STORING) - {status.UNRECOGNISED_OPERATION, status.ERROR_COMMENT_LENGTH_MAX} == set(
        status.STORE_ANSWERS
    )


def test_the_statuses_listed_for_other_services_are_those_in_the_code_that_answers() -> None:
    text = (ROOT / "router/receive/commitment.py").read_text(encoding="utf-8")
    used = {value for name, value in _constants().items() if re.search(rf"\bstatus\.{name}\b", text)}
    assert used | {status.UNRECOGNISED_OPERATION} == set(status.SERVICE_ANSWERS)


@pytest.mark.parametrize("start", range(4))
def test_what_is_listed_for_a_destinations_status_is_what_is_done(start: int) -> None:
    rows = list(heard())
    for code in range(start, 0x10000, 4 * 29):
        outcome = outcome_of(Response(message_id=1, status=code, comment=""), peer="it")
        done = next((row.done for row in rows if row.first <= code <= row.last), rows[-1].done)
        if isinstance(outcome, Delivered):
            assert done.startswith("delivered"), hex(code)
        else:
            assert done.startswith("tried again" if isinstance(outcome, TransientError) else "failed"), hex(code)
