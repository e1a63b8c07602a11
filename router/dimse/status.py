"""DIMSE statuses: what they mean and whether trying again makes sense.

Sources: PS3.7 Annex C (general), PS3.4 B.2.3 (C-STORE), PS3.7 9.1.5 (C-ECHO).
"""

from __future__ import annotations

from enum import StrEnum

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_SOP_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT_VALUE = 0x0115
NO_SUCH_SOP_CLASS = 0x0118
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION_TYPE = 0x0123
NOT_AUTHORISED = 0x0124
UNRECOGNISED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

#: What we answer to a C-STORE, and when. `router conformance` prints it; a test compares it with the code.
STORE_ANSWERS: dict[int, str] = {
    SUCCESS: "the instance is durable, and everything that is owed for it is written down; or the same bytes were taken before",
    OUT_OF_RESOURCES: "the data set is larger than node.dataset_byte_count_max, the spool has no room or cannot be written, "
    "or the ledger could not write the instance down: worth another try",
    DATA_SET_MISMATCH: "command, presentation context and data set name different SOP classes or instances",
    CANNOT_UNDERSTAND: "there is no data set, or its structure is broken, or it has no or doubled UIDs",
    SOP_CLASS_NOT_SUPPORTED: "no rule takes the instance and default_deliver is empty, "
    "or the presentation context is that of another service",
    PROCESSING_FAILURE: "an error of this program",
}
#: The same for the other requests on an association: N-ACTION and N-EVENT-REPORT of Storage Commitment, and what is neither.
SERVICE_ANSWERS: dict[int, str] = {
    SUCCESS: "taken and written down; C-ECHO: always",
    PROCESSING_FAILURE: "the ledger could not write it down",
    NO_SUCH_SOP_INSTANCE: "the request names another than the well-known SOP instance",
    NO_SUCH_EVENT_TYPE: "N-EVENT-REPORT: Event Type ID is neither 1 nor 2",
    INVALID_ARGUMENT_VALUE: "the data set is broken, or N-EVENT-REPORT names a transaction that is none of ours",
    NO_SUCH_SOP_CLASS: "the request names another SOP class",
    NO_SUCH_ACTION_TYPE: "N-ACTION: Action Type ID is not 1",
    UNRECOGNISED_OPERATION: "a service that is not offered on this presentation context",
    RESOURCE_LIMITATION: "more references than one request may have",
}

#: Error Comment (0000,0902) is of VR LO.
ERROR_COMMENT_LENGTH_MAX = 64


class StatusKind(StrEnum):
    """What a status means to whoever sent the request."""

    SUCCESS = "success"
    WARNING = "warning"
    """Stored, with a remark (PS3.4 B.2.3: 0xB000, 0xB006, 0xB007)."""
    PENDING = "pending"
    CANCEL = "cancel"
    BUSY = "busy"
    """A failure that may pass: out of resources, processing failure."""
    FAILURE = "failure"


#: Status -> plain English. A general one (PS3.7 Annex C), or one of C-STORE (PS3.4 Table B.2-1).
_MEANINGS: dict[int, str] = {
    0x0000: "success",
    0x0001: "requested optional attributes are not supported",
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0107: "some attributes were not taken",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0112: "no such SOP instance",
    0x0113: "no such event type",
    0x0114: "no such argument",
    0x0115: "invalid argument value",
    0x0116: "attribute value out of range",
    0x0117: "SOP Instance UID breaks the rules for UIDs",
    0x0118: "no such SOP class",
    0x0119: "instance is not of that SOP class",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0123: "no such action type",
    0x0124: "not authorised",
    0x0210: "duplicate invocation: this message ID is in use",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xB000: "stored, but some values were coerced",
    0xB006: "stored, but some elements were discarded",
    0xB007: "stored, but the data set does not match its SOP class",
    0xFE00: "cancelled",
    0xFF00: "pending",
    0xFF01: "pending",
}


def describe(status: int) -> str:
    """E.g. «0xA700 (out of resources)»."""
    return f"0x{status:04X} ({_meaning(status)})"


def kind_of(status: int) -> StatusKind:
    """What the status of a C-STORE or C-ECHO response asks of whoever sent the request; unknown ones are failures."""
    if status == SUCCESS:
        return StatusKind.SUCCESS
    if status in (0x0001, 0x0107, 0x0116) or status & 0xF000 == 0xB000:
        return StatusKind.WARNING
    if status in (0xFF00, 0xFF01):
        return StatusKind.PENDING
    if status == 0xFE00:
        return StatusKind.CANCEL
    if status & 0xFF00 == 0xA700 or status in (PROCESSING_FAILURE, 0x0213):
        return StatusKind.BUSY
    return StatusKind.FAILURE


def _meaning(status: int) -> str:
    if status in _MEANINGS:
        return _MEANINGS[status]
    match status & 0xFF00:
        case 0xA700:
            return "out of resources"
        case 0xA900:
            return "data set does not match its SOP class"
    match status & 0xF000:
        case 0xB000:
            return "stored, with a warning"
        case 0xC000:
            return "cannot understand the data set"
    return "a status that the Standard does not define"
