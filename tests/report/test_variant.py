"""The same document in the other SR classes: valid, the same content, and what highdicom would have made."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from router.core.ports import ResultObject
from router.report.check import check
from router.report.sr import SrBuilder
from router.report.variant import variant
from tests.report.made import HEADER, encoded, instance_of, meta, prediction, read, validated
from tests.report.oracle import written


def chain() -> list[ResultObject]:
    source = read(HEADER)
    documents = [SrBuilder().build(source, instance_of(source), prediction(labels=2))]
    while (following := variant(documents[-1].data)) is not None:
        documents.append(following)
    return documents


def test_enhanced_then_comprehensive_sr_stand_in_for_comprehensive_3d_sr() -> None:
    classes = [document.sop_class_uid for document in chain()]
    assert classes == [Comprehensive3DSRStorage, EnhancedSRStorage, ComprehensiveSRStorage]


def test_each_has_a_uid_of_its_own_in_the_same_series_and_the_same_content() -> None:
    documents = chain()
    assert len({document.sop_instance_uid for document in documents}) == 3
    assert len({(document.study_instance_uid, document.series_instance_uid) for document in documents}) == 1
    contents = [dcmread(BytesIO(document.data)).ContentSequence for document in documents]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("number", [1, 2])
def test_each_passes_check_and_validators_and_is_what_highdicom_makes_of_that_class(
    number: int, tmp_path: Path
) -> None:
    source, document = read(HEADER), chain()[number]
    assert check(document, source) == []
    validated(document.data, tmp_path)
    assert document.data == written(
        source,
        instance_of(source),
        prediction(labels=2),
        sop_class_uid=document.sop_class_uid,
        sop_instance_uid=document.sop_instance_uid,
        series_instance_uid=document.series_instance_uid,
    )


def test_another_time_they_have_the_same_bytes() -> None:
    assert [document.data for document in chain()] == [document.data for document in chain()]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no file",
        meta() + encoded(HEADER)[:-3],
        meta() + encoded({"PatientID": b"X"}),
        meta(transfer_syntax="1.2"),
    ],
    ids=["nothing", "not DICOM", "cut off", "nothing in it", "another transfer syntax"],
)
def test_what_is_no_document_of_ours_has_no_variant(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        variant(data)


def test_another_kind_of_object_has_no_variant() -> None:
    assert variant(meta() + encoded(HEADER)) is None
