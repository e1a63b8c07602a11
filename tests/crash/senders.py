"""Senders that say of each single instance what was answered: dcmtk's dcmsend, and one of our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from router.deliver.association import Address, Association
from router.errors import AssociationRejected, PeerUnreachable
from router.spool.part10 import data_set_offset
from tests.crash.images import SOP_CLASS_UID, TRANSFER_SYNTAX_UID, Image
from tests.peers import HOST, run

#: (port, images) -> (SOP Instance UID, status) for every response that came; a node that dies in the middle ends the list.
Sender = Callable[[int, Sequence[Image]], list[tuple[str, int]]]

_MESSAGES = re.compile(
    r"Message Type +: C-STORE (?P<kind>RQ|RSP)|Affected SOP Instance UID +: (?P<uid>[\d.]+)|DIMSE Status +: 0x(?P<status>\w{4})"
)


def dcmsend(port: int, images: Sequence[Image]) -> list[tuple[str, int]]:
    """One association of dcmsend. In its debug log every request names its instance and every response its status."""
    done = run("dcmsend", "-d", "-dn", "-aec", "ROUTER", HOST, str(port), *(image.path for image in images))
    answers: list[tuple[str, int]] = []
    uid = ""
    inside = ""
    for found in _MESSAGES.finditer(done.stdout):
        if found["kind"]:
            inside = found["kind"]
        elif found["uid"] and inside == "RQ":
            uid = found["uid"]
        elif found["status"] and inside == "RSP":
            answers.append((uid, int(found["status"], 16)))
    return answers


def own(port: int, images: Sequence[Image]) -> list[tuple[str, int]]:
    """One association, response by response."""
    answers: list[tuple[str, int]] = []
    address = Address(ae_title="ROUTER", host=HOST, port=port, calling_ae_title="SENDER", response_timeout_s=30)
    try:
        association = Association(address, [(SOP_CLASS_UID, TRANSFER_SYNTAX_UID)])
        context_id = association.accepted[SOP_CLASS_UID, TRANSFER_SYNTAX_UID]
        for image in images:
            with image.path.open("rb") as file:
                file.seek(data_set_offset(image.path))
                response = association.store(
                    context_id=context_id, sop_class_uid=SOP_CLASS_UID, sop_instance_uid=image.uid, data_set=file
                )
            answers.append((image.uid, response.status))
        association.release()
    except (PeerUnreachable, AssociationRejected):
        pass  # the node died: whatever was not answered was not acknowledged
    return answers
