"""Audit messages are what PS3.15 A.5.1 says they are, whatever somebody's name or search is."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from router.audit import events
from router.audit.message import Action, AuditMessage, Source, encode

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).with_name("ps3_15_a5.rng")))
NODE = events.Node(ae_title="ROUTER", pid=4711)
ANNA = events.Person(name="anna", address="10.1.2.3")
SEEN = events.Seen(
    study_instance_uid="1.2.3",
    patient_id="P-1",
    accession_number="A-1",
    instances={"1.2.840.10008.5.1.4.1.1.1": ("1.2.3.4", "1.2.3.5")},
)
ALL = {
    "started": events.started(NODE, by="root"),
    "stopped": events.stopped(NODE, by="root"),
    "configured": events.configured(NODE, sha256="00ff"),
    "signed in": events.signed_in(NODE, ANNA),
    "refused": events.signed_in(NODE, ANNA, refused="wrong password"),
    "signed out": events.signed_out(NODE, ANNA),
    "searched": events.searched(NODE, ANNA, "patient_id=P-1"),
    "viewed": events.viewed(NODE, ANNA, [SEEN, events.Seen(study_instance_uid="1.9")]),
    "requeued": events.requeued(NODE, ANNA, what="tasks 1, 2", count=2, seen=[SEEN]),
    "forgotten": events.forgotten(NODE, ANNA, [SEEN], refused="2 task(s) are owed or have failed"),
    "denied": events.denied(NODE, ANNA, path="/failed", why="needs the role operator"),
    "user added": events.user_changed(NODE, ANNA, name="otto", action=Action.CREATE, what="added as viewer"),
}


def xml(message: AuditMessage) -> etree._Element:
    line = encode(message, Source(source_id="ROUTER@host", site_id="Ward 7"))
    assert b"\n" not in line
    root = etree.fromstring(line)
    SCHEMA.assertValid(root)
    return root


@pytest.mark.parametrize("name", ALL)
def test_every_message_of_ours_has_the_structure_of_the_schema(name: str) -> None:
    root = xml(ALL[name])
    assert root.find("AuditSourceIdentification").get("AuditSourceID") == "ROUTER@host"
    assert root.find("ActiveParticipant").get("UserID")


def _returned(value: object) -> object:
    return getattr(value, "__annotations__", {}).get("return")


def test_every_kind_of_message_is_in_the_list_above() -> None:
    made = {name for name, value in vars(events).items() if "AuditMessage" in str(_returned(value)) and name[0] != "_"}
    assert made == {
        "started", "stopped", "configured", "signed_in", "signed_out", "searched", "viewed", "requeued", "forgotten", "denied", "user_changed"
    }  # fmt: skip


def test_a_look_names_who_from_where_which_study_which_images_and_whose() -> None:
    root = xml(ALL["viewed"])
    assert root.find("EventIdentification/EventID").get("csd-code") == "110103"
    assert root.find("EventIdentification").get("EventActionCode") == "R"
    person, node = root.findall("ActiveParticipant")
    assert (person.get("UserID"), person.get("NetworkAccessPointID")) == ("anna", "10.1.2.3")
    assert (node.get("UserID"), node.get("AlternativeUserID")) == ("4711", "AETITLES=ROUTER")
    study, other, patient = root.findall("ParticipantObjectIdentification")
    assert (study.get("ParticipantObjectID"), other.get("ParticipantObjectID")) == ("1.2.3", "1.9")
    assert study.find("ParticipantObjectDescription/Accession").get("Number") == "A-1"
    assert [i.get("UID") for i in study.iter("Instance")] == ["1.2.3.4", "1.2.3.5"]
    assert (patient.get("ParticipantObjectID"), patient.get("ParticipantObjectTypeCode")) == ("P-1", "1")


def test_a_search_is_kept_as_it_was_typed() -> None:
    query = xml(ALL["searched"]).find("ParticipantObjectIdentification/ParticipantObjectQuery").text
    assert base64.b64decode(query) == b"patient_id=P-1"


def test_a_refused_sign_in_says_why_and_is_a_failure() -> None:
    event = xml(ALL["refused"]).find("EventIdentification")
    assert (event.get("EventOutcomeIndicator"), event.find("EventOutcomeDescription").text) == ("4", "wrong password")


def test_the_time_is_utc_with_its_zone() -> None:
    message = AuditMessage(
        event=ALL["viewed"].event,
        action=Action.READ,
        participants=(ANNA.participant(),),
        at=datetime(2026, 11, 22, 4, 5, 6, 789000, tzinfo=UTC),
    )
    assert xml(message).find("EventIdentification").get("EventDateTime") == "2026-11-22T04:05:06.789+00:00"


def test_a_look_at_very_many_studies_is_one_message_of_bounded_size() -> None:
    root = xml(events.viewed(NODE, ANNA, [events.Seen(study_instance_uid=f"1.{n}") for n in range(5000)]))
    studies = root.findall("ParticipantObjectIdentification")
    assert len(studies) == events.STUDIES_MAX
    assert base64.b64decode(studies[0].find("ParticipantObjectDetail").get("value")) == b"5000"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=2000))
def test_no_text_makes_a_message_that_is_not_valid(name: str, patient_id: str, query: str) -> None:
    person = events.Person(name=name, address=patient_id)
    xml(events.searched(NODE, person, query))
    xml(
        events.viewed(
            NODE, person, [events.Seen(study_instance_uid=name, patient_id=patient_id, accession_number=query)]
        )
    )
    xml(events.denied(NODE, person, path=query, why=name))
