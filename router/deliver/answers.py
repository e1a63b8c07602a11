"""What a peer's answers mean, in words: DIMSE statuses, rejections, aborts, and why a connection failed."""

from __future__ import annotations

import errno
import socket

from router.core.ports import Delivered
from router.deliver.command import Response
from router.errors import AssociationRejected, PeerBusy, PeerRefused, PeerUnreachable, RouterError

# PS3.4 Table B.2-1, PS3.7 Annex C.
_WARNINGS = {
    0x0001: "it stored the instance with a warning",
    0x0107: "it ignored some attributes",
    0x0116: "it found an attribute value out of range",
    0xB000: "it coerced data elements",
    0xB006: "it discarded elements",
    0xB007: "it says the data set does not match the SOP class",
}
_BUSY = {
    0x0110: "a processing failure",
    0x0213: "a lack of resources",
}
_REFUSED = {
    0x0105: "no such attribute",
    0x0106: "an invalid attribute value",
    0x0112: "no such SOP instance",
    0x0115: "an invalid argument value",
    0x0117: "an invalid SOP instance",
    0x0118: "no such SOP class",
    0x0119: "a conflict of class and instance",
    0x0120: "a missing attribute",
    0x0121: "a missing attribute value",
    0x0122: "that it does not support the SOP class",
    0x0124: "that we are not authorised",
    0x0210: "a repeated message ID",
    0x0211: "an operation it does not know",
    0x0212: "a mistyped argument",
}
_DUPLICATE = 0x0111

#: PS3.8 Table 9-21: (source, reason).
_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "it does not support our application context",
    (1, 3): "it does not know our calling AE title: add {calling} to the peers it accepts",
    (1, 7): "its AE title is not {called}: correct ae_title of this destination",
    (2, 1): "no reason given (protocol)",
    (2, 2): "it does not support our protocol version",
    (3, 1): "it is congested for the moment",
    (3, 2): "it has as many associations as it allows: lower associations_max or raise its limit",
}


def outcome_of(response: Response, *, peer: str) -> Delivered | RouterError:
    """What a C-STORE response means for the delivery. The peer's own words are a note of the error, not part of its text."""
    status = response.status
    if status == 0x0000:
        return Delivered()
    if status == _DUPLICATE:
        return Delivered(note="it has had this SOP instance before (0x0111)")
    if status in _WARNINGS or status >> 12 == 0xB:
        return Delivered(
            note=f"{_WARNINGS.get(status, 'it answered with a warning')} ({status:#06X})".replace("0X", "0x")
        )
    shown = f"{status:#06X}".replace("0X", "0x")
    outcome: RouterError
    if status >> 8 == 0xA7:
        outcome = PeerBusy(f"{peer} answered {shown}: out of resources", status=status)
    elif status in _BUSY:
        outcome = PeerBusy(f"{peer} answered {shown}: {_BUSY[status]}", status=status)
    elif status >> 8 == 0xA9:
        outcome = PeerRefused(f"{peer} answered {shown}: the data set does not match the SOP class", status=status)
    elif status >> 12 == 0xC:
        outcome = PeerRefused(f"{peer} answered {shown}: it cannot understand the data set", status=status)
    elif status in _REFUSED:
        outcome = PeerRefused(f"{peer} answered {shown}: {_REFUSED[status]}", status=status)
    else:  # worth another try; one that repeats for this instance alone becomes permanent
        outcome = PeerBusy(f"{peer} answered {shown}: a failure that the Standard does not name", status=status)
    if response.comment:
        outcome.add_note(f"its comment: {response.comment}")
    return outcome


def rejection(*, result: int, source: int, reason: int, calling: str, called: str) -> AssociationRejected:
    """An A-ASSOCIATE-RJ in words. Source: PS3.8 Table 9-21."""
    words = _REJECTIONS.get((source, reason), f"reason {reason} of source {source}")
    lasting = "for good" if result == 1 else "for now"
    return AssociationRejected(
        f"{called} rejected the association {lasting}: {words.format(calling=calling, called=called)}"
    )


def unreachable(error: OSError, *, host: str, port: int) -> PeerUnreachable:
    """Why no connection could be opened, and what to look at."""
    where = f"{host}:{port}"
    if isinstance(error, socket.gaierror):
        return PeerUnreachable(f"the name {host!r} is not known: check host of this destination")
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return PeerUnreachable(f"{where} does not answer: is the host on, the address right, a firewall between?")
    match error.errno:
        case errno.ECONNREFUSED:
            return PeerUnreachable(f"nothing listens on {where}: is the destination running, is the port right?")
        case errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EHOSTDOWN:
            return PeerUnreachable(f"there is no way to {where}: check address, cable and routes")
        case errno.ECONNRESET | errno.EPIPE:
            return PeerUnreachable(f"{where} closed the connection: does it accept connections from this host?")
        case _:
            return PeerUnreachable(f"{where} cannot be reached: {error.strerror or type(error).__name__}")


def silent(*, host: str, port: int, what: str, timeout_s: float) -> PeerUnreachable:
    """A peer that is connected and says nothing."""
    return PeerUnreachable(f"{host}:{port} did not {what} within {timeout_s:g} s: does it speak DICOM, does it hang?")


def closed(*, host: str, port: int, when: str) -> PeerUnreachable:
    """A peer that went away in the middle."""
    return PeerUnreachable(f"{host}:{port} closed the connection {when}")
