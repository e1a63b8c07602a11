"""admit and room: who may come in, and with which status the others are answered (PS3.4 B.2.3, PS3.7 C.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import admission
from router.core.admission import Identity, Limits, admit, room, valid_uid

CR = "1.2.840.10008.5.1.4.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
COMMAND = Identity(sop_class_uid=CR, sop_instance_uid="1.2.3.4")
DATASET = Identity(
    sop_class_uid=CR, sop_instance_uid="1.2.3.4", study_instance_uid="1.2.3", series_instance_uid="1.2.3.1"
)
LIMITS = Limits(dataset_byte_count_max=1000, free_byte_count_min=500)


def test_an_instance_whose_command_context_and_data_set_agree_comes_in() -> None:
    assert admit(command=COMMAND, context_sop_class_uid=CR, dataset=DATASET) is None


def test_an_instance_without_sop_class_in_its_data_set_comes_in_as_what_the_command_says() -> None:
    assert admit(command=COMMAND, context_sop_class_uid=CR, dataset=replace(DATASET, sop_class_uid="")) is None


@pytest.mark.parametrize(
    ("command", "context", "dataset", "status", "said"),
    [
        (COMMAND, CT, DATASET, 0xA900, "presentation context"),
        (COMMAND, CR, replace(DATASET, sop_class_uid=CT), 0xA900, "SOPClassUID"),
        (COMMAND, CR, replace(DATASET, sop_instance_uid="1.2.3.5"), 0xA900, "SOPInstanceUID"),
        (COMMAND, CR, Identity(sop_class_uid="", sop_instance_uid=""), 0xC000, "no SOP, study or series"),
        (COMMAND, CR, Identity(sop_class_uid=CR, sop_instance_uid=""), 0xC000, "no SOP, study or series"),
        (replace(COMMAND, sop_instance_uid=""), CR, DATASET, 0xA900, "SOPInstanceUID"),
    ],
)
def test_what_does_not_agree_or_is_no_instance_is_refused_with_the_status_of_the_standard(
    command: Identity, context: str, dataset: Identity, status: int, said: str
) -> None:
    refused = admit(command=command, context_sop_class_uid=context, dataset=dataset)
    assert refused is not None
    assert refused.status == status
    assert said in refused.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"sop_instance_uid": ""},
        {"study_instance_uid": ""},
        {"series_instance_uid": ""},
        {"sop_instance_uid": "", "study_instance_uid": ""},
        {"study_instance_uid": "../../etc/passwd"},
        {"study_instance_uid": "1.2.840.11a619.2"},
        {"study_instance_uid": "1.2.3\\1.2.4"},
        {"series_instance_uid": "1." * 40 + "1"},
    ],
)
def test_a_defective_study_or_series_keeps_nobody_from_passing_the_instance_on(changes: dict[str, str]) -> None:
    assert admit(command=COMMAND, context_sop_class_uid=CR, dataset=replace(DATASET, **changes)) is None


@given(st.text(max_size=80))
def test_a_reason_never_repeats_what_a_peer_sent_because_reasons_are_logged(text: str) -> None:
    bad = "\u2620" + text  # never a UID
    refused = admit(command=COMMAND, context_sop_class_uid=CR, dataset=replace(DATASET, sop_instance_uid=bad))
    assert refused is not None
    assert bad not in refused.reason


@pytest.mark.parametrize("uid", ["1", "1.2.840", "1.02.3", "1" * 64, "2.25.329800735698586629295641978511506172918"])
def test_digits_and_dots_up_to_64_are_a_uid(uid: str) -> None:
    assert valid_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", ".", "1.", ".1", "1..2", "1 ", "1\n", "1\0", "a.b", "1/2", "1.2\\3", "1" * 65, "١.٢"]
)
def test_anything_else_is_not(uid: str) -> None:
    assert not valid_uid(uid)


@given(st.text(alphabet="0123456789./\\ \0\n\u0661a", max_size=70))
def test_a_valid_uid_is_safe_as_part_of_a_file_name(text: str) -> None:
    if valid_uid(text):
        assert set(text) <= set("0123456789.")
        assert ".." not in text
        assert not text.startswith(".")


@pytest.mark.parametrize(
    ("free", "size", "fits"),
    [
        (1500, 1000, True),
        (1499, 1000, False),
        (10**12, 1000, True),
        (10**12, 1001, False),
        (500, 0, True),
        (499, 0, False),
    ],
)
def test_there_is_room_while_the_reserve_stays_free_and_the_data_set_is_not_too_large(
    free: int, size: int, fits: bool
) -> None:
    refused = room(free_byte_count=free, byte_count=size, limits=LIMITS)
    assert (refused is None) == fits
    if refused is not None:
        assert refused.status == admission.OUT_OF_RESOURCES == 0xA700


def test_a_refusal_for_lack_of_room_names_the_setting_that_says_so() -> None:
    assert "spool.free_byte_count_min" in str(room(free_byte_count=0, byte_count=1, limits=LIMITS))
    assert "node.dataset_byte_count_max" in str(room(free_byte_count=10**9, byte_count=10**6, limits=LIMITS))
