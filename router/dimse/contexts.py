"""Which presentation contexts we accept: a decision over what a requestor proposes. Source: PS3.8 9.3.3.2, Annex B.

Accepted: Verification, and whatever can be an object of a study: every Storage SOP class of the Standard, retired ones
too, and every class that we do not know, private or newer than we are. Transfer syntaxes: those whose header we can read.
docs/decisions.md says why the choice among several is made as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from router.core import commitment
from router.core.admission import valid_uid

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

# Result of a presentation context, PS3.8 Table 9-18
ACCEPTED = 0
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4

#: The name is what people see. Everything but the first two and big endian has an explicit little endian header.
TRANSFER_SYNTAXES: dict[str, str] = {
    IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.98": "Encapsulated Uncompressed Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline (Process 1)",
    "1.2.840.10008.1.2.4.51": "JPEG Extended (Processes 2 and 4)",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless (Process 14)",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless (Process 14, Selection Value 1)",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.92": "JPEG 2000 Part 2 Lossless",
    "1.2.840.10008.1.2.4.93": "JPEG 2000 Part 2",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K Lossless RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.4.100": "MPEG2 Main Level",
    "1.2.840.10008.1.2.4.100.1": "MPEG2 Main Level, fragmentable",
    "1.2.840.10008.1.2.4.101": "MPEG2 High Level",
    "1.2.840.10008.1.2.4.101.1": "MPEG2 High Level, fragmentable",
    "1.2.840.10008.1.2.4.102": "MPEG-4 AVC/H.264 4.1",
    "1.2.840.10008.1.2.4.102.1": "MPEG-4 AVC/H.264 4.1, fragmentable",
    "1.2.840.10008.1.2.4.103": "MPEG-4 AVC/H.264 4.1 BD",
    "1.2.840.10008.1.2.4.103.1": "MPEG-4 AVC/H.264 4.1 BD, fragmentable",
    "1.2.840.10008.1.2.4.104": "MPEG-4 AVC/H.264 4.2 2D",
    "1.2.840.10008.1.2.4.104.1": "MPEG-4 AVC/H.264 4.2 2D, fragmentable",
    "1.2.840.10008.1.2.4.105": "MPEG-4 AVC/H.264 4.2 3D",
    "1.2.840.10008.1.2.4.105.1": "MPEG-4 AVC/H.264 4.2 3D, fragmentable",
    "1.2.840.10008.1.2.4.106": "MPEG-4 AVC/H.264 4.2 Stereo",
    "1.2.840.10008.1.2.4.106.1": "MPEG-4 AVC/H.264 4.2 Stereo, fragmentable",
    "1.2.840.10008.1.2.4.107": "HEVC/H.265 Main 5.1",
    "1.2.840.10008.1.2.4.108": "HEVC/H.265 Main 10 5.1",
}

#: Of Storage Commitment: its data sets are ours to read.
COMMITMENT_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

#: Storage classes whose objects belong to no study (PS3.4 Annex GG) or to no network: the ledger could not file them.
_NOT_OF_A_STUDY = frozenset(
    (
        "1.2.840.10008.1.3.10",  # Media Storage Directory Storage
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol Storage
        "1.2.840.10008.5.1.4.39.1",  # Color Palette Storage
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template Storage
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template Storage
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group Storage
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT Defined Procedure Protocol Storage
        "1.2.840.10008.5.1.4.1.1.200.3",  # Protocol Approval Storage
        "1.2.840.10008.5.1.4.1.1.200.7",  # XA Defined Procedure Protocol Storage
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory Storage
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedContext:
    """One presentation context of an A-ASSOCIATE-RQ."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredContext:
    """Our answer: `transfer_syntax` is empty unless `result` is ACCEPTED."""

    context_id: int
    abstract_syntax: str
    result: int
    transfer_syntax: str = ""


def answer(proposed: ProposedContext, *, storage: bool = True, storage_commitment: bool = False) -> AnsweredContext:
    """Accepted with one transfer syntax, or not and why. Verification is for everybody."""
    result, syntax = ABSTRACT_SYNTAX_NOT_SUPPORTED, None
    if proposed.abstract_syntax == commitment.SOP_CLASS_UID:
        if storage_commitment:
            result = TRANSFER_SYNTAXES_NOT_SUPPORTED
            syntax = next((uid for uid in COMMITMENT_TRANSFER_SYNTAXES if uid in proposed.transfer_syntaxes), None)
    elif accepts_class(proposed.abstract_syntax) and (storage or proposed.abstract_syntax == VERIFICATION):
        result = TRANSFER_SYNTAXES_NOT_SUPPORTED
        syntax = choose_transfer_syntax(proposed.transfer_syntaxes)
    return AnsweredContext(
        context_id=proposed.context_id,
        abstract_syntax=proposed.abstract_syntax,
        result=result if syntax is None else ACCEPTED,
        transfer_syntax=syntax or "",
    )


def choose_transfer_syntax(proposed: Iterable[str]) -> str | None:
    """The first one that we can read, but explicit rather than implicit VRs where both are offered; None for none."""
    readable = [uid for uid in proposed if uid in TRANSFER_SYNTAXES]
    if not readable:
        return None
    if readable[0] == IMPLICIT_VR_LITTLE_ENDIAN and EXPLICIT_VR_LITTLE_ENDIAN in readable:
        return EXPLICIT_VR_LITTLE_ENDIAN
    return readable[0]


@lru_cache(maxsize=4096)
def accepts_class(abstract_syntax: str) -> bool:
    """True for Verification and for every class whose objects may belong to a study."""
    if abstract_syntax == VERIFICATION:
        return True
    if not valid_uid(abstract_syntax) or abstract_syntax in _NOT_OF_A_STUDY:
        return False
    return abstract_syntax not in _known_uids() or abstract_syntax in _storage_classes()


def storage_classes() -> dict[str, str]:
    """The Storage SOP classes of the Standard that are accepted: UID -> name, by names; PS3.6 has lost two of these."""
    from pydicom._uid_dict import UID_dictionary

    names = {uid: UID_dictionary[uid][0] for uid in _storage_classes() if accepts_class(uid)}
    return dict(sorted(names.items(), key=lambda item: (not item[1], item[1].lower(), item[0])))


@lru_cache(maxsize=1)
def _known_uids() -> frozenset[str]:
    """Every UID of PS3.6 Annex A, of whatever type."""
    from pydicom._uid_dict import UID_dictionary

    return frozenset(UID_dictionary)


@lru_cache(maxsize=1)
def _storage_classes() -> frozenset[str]:
    """Storage SOP classes of PS3.6 Annex A."""
    from pydicom._uid_dict import UID_dictionary

    return frozenset(
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        # Two retired ones have lost their names («Storage» among them) in PS3.6; only storage classes did.
        if kind == "SOP Class" and (not name or ("Storage" in name and "Storage Commitment" not in name))
    )
