"""What we accept of what is proposed."""

from __future__ import annotations

import pytest

from router.dimse.contexts import ProposedContext, accepts_class, answer, choose_transfer_syntax

IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
BASELINE, LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"


def test_every_storage_class_that_pynetdicom_knows_is_accepted() -> None:
    from pynetdicom import AllStoragePresentationContexts

    refused = {c.abstract_syntax.name for c in AllStoragePresentationContexts if not accepts_class(c.abstract_syntax)}
    # These belong to no study (PS3.4 Annex GG).
    assert refused <= {
        "CT Defined Procedure Protocol Storage",
        "Protocol Approval Storage",
        "XA Defined Procedure Protocol Storage",
        "Inventory Storage",
    }


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.1.1",  # Verification
        "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray
        "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image Storage, retired
        "1.2.840.10008.5.1.1.29",  # Hardcopy Grayscale, retired
        "1.2.840.10008.5.1.4.34.7",  # RT Beams Delivery Instruction
        "1.2.840.10008.5.1.4.1.1.9999",  # newer than we are
        "1.3.12.2.1107.5.9.1",  # CSA non-image
        "1.2.840.113619.4.27",  # private
        "2.25.123",
    ],
)
def test_objects_of_a_study_are_accepted(uid: str) -> None:
    assert accepts_class(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.1.3.10",  # Media Storage Directory
        "1.2.840.10008.1.20.1",  # Storage Commitment Push
        "1.2.840.10008.1.20.2",
        "1.2.840.10008.3.1.2.3.3",  # MPPS
        "1.2.840.10008.5.1.1.9",  # Print meta SOP class
        "1.2.840.10008.5.1.1.1",
        "1.2.840.10008.5.1.4.1.2.1.1",  # FIND
        "1.2.840.10008.5.1.4.1.2.1.2",  # MOVE
        "1.2.840.10008.5.1.4.31",  # worklist
        "1.2.840.10008.5.1.4.34.6.1",  # UPS
        "1.2.840.10008.5.1.4.38.1",  # hanging protocol
        "1.2.840.10008.1.2.1",  # a transfer syntax
        "1.2.840.10008.3.1.1.1",  # an application context
        "",
        "x",
        "1.2..3",
        "1." * 40,
    ],
)
def test_other_services_and_what_is_no_uid_are_not(uid: str) -> None:
    assert not accepts_class(uid)


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([IMPLICIT], IMPLICIT),
        ([EXPLICIT, BIG, IMPLICIT], EXPLICIT),  # dcmtk
        ([IMPLICIT, EXPLICIT, DEFLATED, BIG], EXPLICIT),  # pynetdicom
        ([BIG, IMPLICIT], BIG),
        ([LOSSLESS, EXPLICIT], LOSSLESS),
        ([BASELINE, IMPLICIT, EXPLICIT], BASELINE),
        (["1.2.840.113619.5.2", EXPLICIT], EXPLICIT),  # private first
        (["1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.6.1"], None),  # JPIP, MIME
        (["1.2.840.10008.1.2.4.201"], "1.2.840.10008.1.2.4.201"),
        ([], None),
    ],
)
def test_the_requestor_s_order_counts_but_explicit_goes_before_implicit(proposed, chosen) -> None:
    assert choose_transfer_syntax(proposed) == chosen


@pytest.mark.parametrize(
    ("abstract", "syntaxes", "result"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", (EXPLICIT,), 0),
        ("1.2.840.10008.5.1.4.1.1.2", ("1.2.3",), 4),
        ("1.2.840.10008.5.1.4.31", (EXPLICIT,), 3),
    ],
)
def test_the_answer_says_what_was_not_supported(abstract, syntaxes, result) -> None:
    answered = answer(ProposedContext(context_id=1, abstract_syntax=abstract, transfer_syntaxes=syntaxes))
    assert (answered.result, bool(answered.transfer_syntax)) == (result, result == 0)
