"""May this instance come in? Values in, a decision out; the caller answers the status."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: PS3.5 9.1: digits and dots, at most 64 characters. Leading zeros are tolerated: archives hold such UIDs already.
UID_PATTERN = re.compile(r"[0-9]+(\.[0-9]+)*")
UID_LENGTH_MAX = 64
#: Of text that stands where a study's or a series' UID belongs: what is longer is neither filed under nor reported.
UID_TEXT_LENGTH_MAX = 256

# PS3.4 B.2.3, PS3.7 C.5
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORISED = 0x0124


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The UIDs of a data set, or of the command and context that brought it; empty text where absent."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the node takes at most; from the configuration."""

    dataset_byte_count_max: int
    free_byte_count_min: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The status to answer and why, in plain English without patient data."""

    status: int
    reason: str


def valid_uid(text: str) -> bool:
    """True for text that may serve as a UID in this node."""
    return len(text) <= UID_LENGTH_MAX and UID_PATTERN.fullmatch(text) is not None


def room(*, free_byte_count: int, byte_count: int, limits: Limits) -> Refused | None:
    """None when `byte_count` more bytes fit while `free_byte_count_min` stay free."""
    if byte_count > limits.dataset_byte_count_max:
        return Refused(
            status=OUT_OF_RESOURCES,
            reason=f"data set of {byte_count} bytes is over node.dataset_byte_count_max = {limits.dataset_byte_count_max}",
        )
    if free_byte_count - byte_count < limits.free_byte_count_min:
        return Refused(
            status=OUT_OF_RESOURCES,
            reason=f"spool has {free_byte_count} bytes free, spool.free_byte_count_min is {limits.free_byte_count_min}",
        )
    return None


def admit(*, command: Identity, context_sop_class_uid: str, dataset: Identity) -> Refused | None:
    """None when command, presentation context and data set agree about what comes.

    What stands in the data set besides, study and series among it, is the sender's and the destinations' affair: an
    image with a Study Instance UID that is none is passed on as it is, and only gets no report.

    Source: PS3.4 B.2.3 (0xA900: Data Set does not match SOP Class), PS3.7 9.1.1.1.
    """
    if command.sop_class_uid != context_sop_class_uid:
        return Refused(
            status=DATA_SET_MISMATCH, reason="SOP class of the command is not that of its presentation context"
        )
    if not (dataset.sop_instance_uid or dataset.study_instance_uid or dataset.series_instance_uid):
        return Refused(status=CANNOT_UNDERSTAND, reason="the data set has no SOP, study or series instance UID")
    if dataset.sop_class_uid and dataset.sop_class_uid != command.sop_class_uid:
        return Refused(status=DATA_SET_MISMATCH, reason="SOPClassUID of the data set is not that of the command")
    if dataset.sop_instance_uid and dataset.sop_instance_uid != command.sop_instance_uid:
        return Refused(status=DATA_SET_MISMATCH, reason="SOPInstanceUID of the data set is not that of the command")
    return None
