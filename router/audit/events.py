"""What this node puts into its audit trail: one function each, which gives the message. Source: PS3.15 A.5.3; codes of PS3.16 CID 400-404."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from router.audit.message import Action, AuditMessage, Code, Outcome, Participant, Subject
from router.core.instance import SopInstance

_ACTIVITY = Code("110100", "DCM", "Application Activity")
_STARTED, _STOPPED = Code("110120", "DCM", "Application Start"), Code("110121", "DCM", "Application Stop")
_ACCESSED = Code("110103", "DCM", "DICOM Instances Accessed")
_STUDY_DELETED = Code("110105", "DCM", "DICOM Study Deleted")
_QUERY = Code("110112", "DCM", "Query")
_ALERT = Code("110113", "DCM", "Security Alert")
_SOFTWARE_CONFIGURATION = Code("110131", "DCM", "Software Configuration")
_RESTRICTED_FUNCTION = Code("110132", "DCM", "Use of Restricted Function")
_USER_CHANGED = Code("110137", "DCM", "User security Attributes Changed")
_AUTHENTICATION = Code("110114", "DCM", "User Authentication")
_LOGIN, _LOGOUT = Code("110122", "DCM", "Login"), Code("110123", "DCM", "Logout")
_APPLICATION, _LAUNCHER = Code("110150", "DCM", "Application"), Code("110151", "DCM", "Application Launcher")
_DESTINATION_ROLE = Code("110152", "DCM", "Destination Role ID")

_STUDY_UID = Code("110180", "DCM", "Study Instance UID")
_PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")
_SEARCH_CRITERIA = Code("10", "RFC-3881", "Search Criteria")
_USER_IDENTIFIER = Code("11", "RFC-3881", "User Identifier")
_URI = Code("12", "RFC-3881", "URI")
_TASK = Code("task", "99DICOMAIROUTER", "Task of the router")

#: Studies named in one message; more are told by their number.
STUDIES_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The node, as a participant."""

    ae_title: str
    pid: int

    def participant(self, *, requestor: bool = False, role: Code | None = None) -> Participant:
        """As PS3.15 A.5.2.2 names a DICOM node."""
        return Participant(
            user_id=str(self.pid), alternative_id=f"AETITLES={self.ae_title}", requestor=requestor, role=role
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whoever did it."""

    name: str
    address: str = ""
    by: str = ""
    """How, where it was not by the pages: stands as UserName."""

    def participant(self, role: Code | None = None) -> Participant:
        return Participant(user_id=self.name, name=self.by, requestor=True, role=role, address=self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A study that somebody saw, or instances of it."""

    study_instance_uid: str
    patient_id: str = ""
    accession_number: str = ""
    instances: Mapping[str, tuple[str, ...]] | None = None
    """SOP Class UID -> SOP Instance UIDs; None: the study as a whole."""


def seen_of(instances: Iterable[SopInstance]) -> list[Seen]:
    """Study by study, patient by patient, in the order in which they come."""
    found: dict[tuple[str, str, str], dict[str, tuple[str, ...]]] = {}
    for one in instances:
        header = one.header
        key = (one.study_instance_uid, header.get("PatientID", ""), header.get("AccessionNumber", ""))
        uids = found.setdefault(key, {})
        uids[one.sop_class_uid] = (*uids.get(one.sop_class_uid, ()), one.sop_instance_uid)
    return [
        Seen(study_instance_uid=study, patient_id=patient_id, accession_number=number, instances=uids)
        for (study, patient_id, number), uids in found.items()
    ]


def started(node: Node, *, by: str) -> AuditMessage:
    """A.5.3.1: the node begins."""
    return _activity(node, _STARTED, by)


def stopped(node: Node, *, by: str) -> AuditMessage:
    """A.5.3.1: the node ends by itself."""
    return _activity(node, _STOPPED, by)


def configured(node: Node, *, sha256: str) -> AuditMessage:
    """A.5.3.11: which configuration the node uses."""
    subject = Subject(
        subject_id=f"urn:sha256:{sha256}", id_type=_URI, type_code="2", role_code="13", name="configuration in use"
    )
    return AuditMessage(
        event=_ALERT,
        event_types=(_SOFTWARE_CONFIGURATION,),
        action=Action.EXECUTE,
        participants=(node.participant(requestor=True),),
        subjects=(subject,),
    )


def signed_in(node: Node, person: Person, *, refused: str = "") -> AuditMessage:
    """A.5.3.12: somebody signed in, or tried to; `refused` says why not."""
    return _authentication(node, person, _LOGIN, refused)


def signed_out(node: Node, person: Person) -> AuditMessage:
    """A.5.3.12."""
    return _authentication(node, person, _LOGOUT, "")


def searched(node: Node, person: Person, criteria: str) -> AuditMessage:
    """A.5.3.10: somebody searched for studies."""
    subject = Subject(subject_id="studies", id_type=_SEARCH_CRITERIA, type_code="2", role_code="24", query=criteria)
    return AuditMessage(
        event=_QUERY,
        action=Action.EXECUTE,
        participants=(person.participant(), node.participant(role=_DESTINATION_ROLE)),
        subjects=(subject,),
    )


def viewed(node: Node, person: Person, seen: Sequence[Seen]) -> AuditMessage:
    """A.5.3.6: somebody was shown data of these studies."""
    return AuditMessage(
        event=_ACCESSED,
        action=Action.READ,
        participants=(person.participant(), node.participant()),
        subjects=_subjects(seen),
    )


def requeued(
    node: Node, person: Person, *, what: str, count: int, seen: Sequence[Seen] = (), refused: str = ""
) -> AuditMessage:
    """A.5.3.11: an operator put tasks back; `what` names them."""
    tasks = Subject(
        subject_id=what,
        id_type=_TASK,
        type_code="2",
        role_code="20",
        name="tasks put back",
        details={"count": str(count)},
    )
    return _restricted(node, person, (tasks, *_subjects(seen)), refused)


def forgotten(node: Node, person: Person, seen: Sequence[Seen], *, refused: str = "") -> AuditMessage:
    """A.5.3.8: everything of a study is removed from this node; `refused` says why not."""
    return AuditMessage(
        event=_STUDY_DELETED,
        action=Action.DELETE,
        participants=(person.participant(), node.participant()),
        outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
        outcome_description=refused,
        subjects=_subjects(seen),
    )


def denied(node: Node, person: Person, *, path: str, why: str) -> AuditMessage:
    """A.5.3.11: somebody asked for what they may not have."""
    return _restricted(
        node, person, (Subject(subject_id=path, id_type=_URI, type_code="2", role_code="13", name="page"),), why
    )


def user_changed(node: Node, person: Person, *, name: str, action: Action, what: str) -> AuditMessage:
    """A.5.3.11: a user was added, removed, or changed."""
    subject = Subject(subject_id=name, id_type=_USER_IDENTIFIER, type_code="1", role_code="11", name=what)
    return AuditMessage(
        event=_ALERT,
        event_types=(_USER_CHANGED,),
        action=action,
        participants=(person.participant(), node.participant()),
        subjects=(subject,),
    )


def _activity(node: Node, event_type: Code, by: str) -> AuditMessage:
    launcher = Participant(user_id=by, requestor=True, role=_LAUNCHER)
    return AuditMessage(
        event=_ACTIVITY,
        event_types=(event_type,),
        action=Action.EXECUTE,
        participants=(node.participant(role=_APPLICATION), launcher),
    )


def _authentication(node: Node, person: Person, event_type: Code, refused: str) -> AuditMessage:
    return AuditMessage(
        event=_AUTHENTICATION,
        event_types=(event_type,),
        action=Action.EXECUTE,
        participants=(person.participant(), node.participant()),
        outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
        outcome_description=refused,
    )


def _restricted(node: Node, person: Person, subjects: tuple[Subject, ...], refused: str) -> AuditMessage:
    return AuditMessage(
        event=_ALERT,
        event_types=(_RESTRICTED_FUNCTION,),
        action=Action.EXECUTE,
        participants=(person.participant(), node.participant()),
        outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
        outcome_description=refused,
        subjects=subjects,
    )


def _subjects(seen: Sequence[Seen]) -> tuple[Subject, ...]:
    studies = [
        Subject(
            subject_id=one.study_instance_uid,
            id_type=_STUDY_UID,
            type_code="2",
            role_code="3",
            accessions=(one.accession_number,) if one.accession_number else (),
            instances=one.instances or {},
            details={} if len(seen) <= STUDIES_MAX else {"study count": str(len(seen))},
        )
        for one in seen[:STUDIES_MAX]
    ]
    patient_ids = dict.fromkeys(one.patient_id for one in seen[:STUDIES_MAX] if one.patient_id)
    patients = [
        Subject(subject_id=patient_id, id_type=_PATIENT_NUMBER, type_code="1", role_code="1")
        for patient_id in patient_ids
    ]
    return (*studies, *patients)
