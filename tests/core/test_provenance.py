"""A result object is recognised by what stands in its Contributing Equipment, and nothing else is."""

from __future__ import annotations

import pytest

from router.core.admission import valid_uid
from router.core.provenance import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MODEL_NAME,
    PURPOSE,
    is_ours,
)

OURS = {
    "manufacturer": MANUFACTURER,
    "model_name": MODEL_NAME,
    "purpose_code": PURPOSE[0],
    "purpose_scheme": PURPOSE[1],
}


def test_what_a_router_signed_is_ours_with_and_without_padding() -> None:
    assert is_ours(**OURS)
    assert is_ours(**{key: value + " " for key, value in OURS.items()})


@pytest.mark.parametrize("key", list(OURS))
def test_one_fact_that_differs_is_enough_to_be_somebody_elses(key: str) -> None:
    assert not is_ours(**{**OURS, key: "other"})
    assert not is_ours(**{**OURS, key: ""})


def test_the_signature_never_changes_because_old_objects_must_be_recognised() -> None:
    assert (MANUFACTURER, MODEL_NAME, PURPOSE[:2]) == ("dicom-ai-router", "dicom-ai-router", ("109102", "DCM"))
    assert IMPLEMENTATION_CLASS_UID == "2.25.10435610613333799582360081119491534736"


def test_the_implementation_identifiers_fit_their_value_representations() -> None:
    assert valid_uid(IMPLEMENTATION_CLASS_UID)
    assert 1 <= len(IMPLEMENTATION_VERSION_NAME) <= 16
