"""An audit message and its XML. Source: PS3.15 A.5.1 (schema), A.5.2 (conventions); IHE ITI TF-2 3.20."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from xml.etree import ElementTree as ET

#: What XML 1.0 cannot hold (2.2), and line ends: a message is one line.
_FORBIDDEN = re.compile("[^\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT_LENGTH_MAX = 1000


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value: value, coding scheme, meaning."""

    value: str
    scheme: str
    meaning: str


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(StrEnum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Somebody, or a process, that took part."""

    user_id: str
    requestor: bool
    alternative_id: str = ""
    name: str = ""
    role: Code | None = None
    address: str = ""
    """IP address it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What it was about: a study, a patient, a search, a task, a user (ParticipantObjectIdentification)."""

    subject_id: str
    id_type: Code
    type_code: str
    """ParticipantObjectTypeCode: 1 person, 2 system object."""
    role_code: str
    """ParticipantObjectTypeCodeRole."""
    name: str = ""
    query: str | None = None
    """What was searched for; stands in place of the name."""
    details: Mapping[str, str] = field(default_factory=dict)
    accessions: tuple[str, ...] = ()
    instances: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """SOP Class UID -> SOP Instance UIDs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditMessage:
    """One thing that happened."""

    event: Code
    action: Action
    participants: tuple[Participant, ...]
    event_types: tuple[Code, ...] = ()
    outcome: Outcome = Outcome.SUCCESS
    outcome_description: str = ""
    subjects: tuple[Subject, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who reports: this node."""

    source_id: str
    site_id: str = ""


def encode(message: AuditMessage, source: Source) -> bytes:
    """The message as one line of XML, UTF-8, without an XML declaration. Order of elements as in the schema."""
    root = ET.Element("AuditMessage")
    event = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action.value,
        EventDateTime=message.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=message.outcome.value,
    )
    _code(event, "EventID", message.event)
    for event_type in message.event_types:
        _code(event, "EventTypeCode", event_type)
    if message.outcome_description:
        ET.SubElement(event, "EventOutcomeDescription").text = _clean(message.outcome_description)
    for participant in message.participants:
        _participant(root, participant)
    site = {"AuditEnterpriseSiteID": _clean(source.site_id)} if source.site_id else {}
    reporter = ET.SubElement(root, "AuditSourceIdentification", {**site, "AuditSourceID": _clean(source.source_id)})
    ET.SubElement(reporter, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
    for subject in message.subjects:
        _subject(root, subject)
    # As text first: written as bytes it goes through a stream that takes twice the time, and a page waits for it.
    return ET.tostring(root, encoding="unicode").encode("utf-8", "xmlcharrefreplace")


def _participant(root: ET.Element, participant: Participant) -> None:
    attributes = {"UserID": _clean(participant.user_id) or "unknown"}
    if participant.alternative_id:
        attributes["AlternativeUserID"] = _clean(participant.alternative_id)
    if participant.name:
        attributes["UserName"] = _clean(participant.name)
    attributes["UserIsRequestor"] = "true" if participant.requestor else "false"
    if participant.address:
        attributes |= {"NetworkAccessPointID": _clean(participant.address), "NetworkAccessPointTypeCode": "2"}
    element = ET.SubElement(root, "ActiveParticipant", attributes)
    if participant.role is not None:
        _code(element, "RoleIDCode", participant.role)


def _subject(root: ET.Element, subject: Subject) -> None:
    element = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(subject.subject_id) or "unknown",
        ParticipantObjectTypeCode=subject.type_code,
        ParticipantObjectTypeCodeRole=subject.role_code,
    )
    _code(element, "ParticipantObjectIDTypeCode", subject.id_type)
    if subject.query is not None:
        ET.SubElement(element, "ParticipantObjectQuery").text = _base64(subject.query)
    else:
        ET.SubElement(element, "ParticipantObjectName").text = _clean(subject.name)
    for key, value in subject.details.items():
        ET.SubElement(element, "ParticipantObjectDetail", {"type": _clean(key), "value": _base64(value)})
    if subject.accessions or subject.instances:
        described = ET.SubElement(element, "ParticipantObjectDescription")
        for number in subject.accessions:
            ET.SubElement(described, "Accession", Number=_clean(number))
        for sop_class_uid, uids in subject.instances.items():
            sop_class = ET.SubElement(
                described, "SOPClass", UID=_clean(sop_class_uid), NumberOfInstances=str(len(uids))
            )
            for uid in uids:
                ET.SubElement(sop_class, "Instance", UID=_clean(uid))


def _code(parent: ET.Element, tag: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    ET.SubElement(parent, tag, attributes)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub(" ", text)[:_TEXT_LENGTH_MAX].strip()


def _base64(text: str) -> str:
    return base64.b64encode(text[:_TEXT_LENGTH_MAX].encode("utf-8", "replace")).decode()
