"""The requestor: what we open associations for, what we propose, what we do with the answers."""

from __future__ import annotations

from collections.abc import Iterator

from router.conformance.answers import heard
from router.conformance.page import hexadecimal, named, section, table
from router.core import commitment
from router.deliver.association import SENT_PDU_BYTE_COUNT_MAX
from router.deliver.connection import RECEIVED_PDU_BYTE_COUNT_MAX
from router.deliver.dicom import DicomDestination
from router.deliver.negotiation import CONTEXT_COUNT_MAX
from router.dimse.contexts import (
    COMMITMENT_TRANSFER_SYNTAXES,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)
from router.report.variant import INSTEAD
from router.settings import DestinationSettings, Settings

_OTHER = -1


def dicom_destinations(settings: Settings) -> list[DestinationSettings]:
    """Those that we send to by C-STORE."""
    return [one for one in settings.destinations.values() if isinstance(one.options, DicomDestination.Settings)]


def initiation(settings: Settings) -> str:
    """4.2.1.3: association initiation policy."""
    destinations = dicom_destinations(settings)
    if not (destinations or settings.commitment.enabled):
        return section(5, "4.2.1.3 Association initiation policy", "This configuration opens no association.")
    parts = [_destinations(settings, destinations), _proposed(settings, destinations)] if destinations else []
    return section(
        5,
        "4.2.1.3 Association initiation policy",
        *parts,
        _storage(settings) if destinations else "",
        _commitment(settings, destinations),
        section(
            6,
            "SOP specific conformance: Verification",
            "C-ECHO by `router echo` and `router check --echo`, and to find out whether a destination that was down is back. A"
            " destination that accepts the association and not the context counts as being there.",
        )
        if destinations
        else "",
    )


def _destinations(settings: Settings, destinations: list[DestinationSettings]) -> str:
    rows = [
        (
            f"`{one.options.ae_title}`",
            f"{one.options.host}:{one.options.port}",
            f"`{one.options.calling_ae_title or settings.node.ae_title}`",
            one.associations_max,
            one.options.operations_max,
            f"{one.options.keep_open_s:g} s",
            f"{one.options.connect_timeout_s:g} s, {one.options.response_timeout_s:g} s",
            "yes" if one.options.transcode else "no",
            "yes" if one.options.commitment else "no",
        )
        for one in destinations
    ]
    columns = (
        "Called AE title",
        "Address",
        "Calling AE title",
        "Associations at one time",
        "Operations asked for",
        "Kept open without work",
        "Time-outs: connection, answer",
        "Decompressed for it",
        "Asked to commit",
    )
    return "\n\n".join(
        (
            "An association is opened when a delivery is owed, and kept open for more.",
            table(columns, rows),
            f"We receive PDUs of up to {RECEIVED_PDU_BYTE_COUNT_MAX} bytes as requestor, and send none longer than the peer's maximum"
            f" or {SENT_PDU_BYTE_COUNT_MAX} bytes.",
        )
    )


def _proposed(settings: Settings, destinations: list[DestinationSettings]) -> str:
    own = "the one in which the instance came, alone in its context"
    decoded = f"`{EXPLICIT_VR_LITTLE_ENDIAN}`, in a further context of a compressed instance"
    rows = [("SOP class of each instance to be sent", own, "SCU", "none")]
    if any(one.options.transcode for one in destinations):
        rows.append(("", decoded, "SCU", "none"))
    rows.append((f"Verification `{VERIFICATION}`", f"`{IMPLICIT_VR_LITTLE_ENDIAN}`", "SCU", "none"))
    plain = ", ".join(f"`{uid}`" for uid in COMMITMENT_TRANSFER_SYNTAXES)
    if any(one.options.commitment for one in destinations):
        rows.append((f"Storage Commitment Push Model `{commitment.SOP_CLASS_UID}`", plain, "SCU", "none"))
    if settings.commitment.enabled:
        rows.append((f"Storage Commitment Push Model `{commitment.SOP_CLASS_UID}`", plain, "SCP", "role selection"))
    return section(
        6,
        "Proposed presentation contexts",
        table(("Abstract syntax", "Transfer syntaxes", "Role", "Ext. neg."), rows),
        f"Up to {CONTEXT_COUNT_MAX} contexts, for the instances that wait; further ones go on an association of their own.",
    )


def _storage(settings: Settings) -> str:
    table_of_answers = table(
        ("Status of C-STORE", "Taken to mean", "Then"),
        [(_range(first, last), meaning, done) for first, last, meaning, done in _answers()],
    )
    return section(
        6,
        "SOP specific conformance: Storage",
        table_of_answers,
        "What is tried again waits longer each time, without an end; an instance that alone fails on and on is set aside as failed."
        " What has failed is sent again when an operator puts it back, or the sender sends the same bytes again.",
        "A destination that refuses a Structured Report of ours in one SOP class gets the same document in another one:",
        table(
            ("Refused", "Sent instead"),
            [(f"{named(a)} `{a}`", f"{named(b)} `{b}`") for a, b in INSTEAD.items()],
        ),
    )


def _answers() -> Iterator[tuple[int, int, str, str]]:
    for one in heard():
        yield one.first, one.last, one.meaning, one.done


def _range(first: int, last: int) -> str:
    if first == _OTHER:
        return "any other"
    return hexadecimal(first) if first == last else f"{hexadecimal(first)} to {hexadecimal(last)}"


def _commitment(settings: Settings, destinations: list[DestinationSettings]) -> str:
    lines = []
    asked = [one for one in destinations if one.options.commitment]
    if asked:
        listed = ", ".join(f"`{one.options.ae_title}`" for one in asked)
        lines.append(
            f"As SCU, {listed} is asked by N-ACTION to commit to what it was sent; what it lacks is sent again. Without an answer it"
            " is asked again, later each time."
        )
    if settings.commitment.enabled:
        ports = ", ".join(f"`{peer.ae_title}` port {peer.port}" for peer in settings.peers if peer.port is not None)
        where = f"peers with a port ({ports}), and destinations" if ports else "peers that are destinations, too"
        lines.append(
            "As SCP, N-EVENT-REPORT is sent on an association that we open, proposing ourselves in the role of SCP, to"
            f" {where}; to others only on the association of their request."
        )
    return section(6, "SOP specific conformance: Storage Commitment Push Model", *lines) if lines else ""
