"""The router's own encoder against highdicom: the same bytes, whatever the image and the prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from router.core.findings import ClassifierIdentity, Finding, Prediction
from router.core.instance import Reference
from router.report.codes import FINDINGS
from router.report.context import context_of
from router.report.sr import SrBuilder
from tests.report.made import HEADER, SHARED_DICOM, instance_of, prediction, read, reference
from tests.report.oracle import written

BUILDER = SrBuilder()
WORDS = st.text(max_size=80)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
UNIT = st.floats(0, 1)
LABELS = st.one_of(st.sampled_from([row.label for row in FINDINGS]), WORDS.filter(str.strip))


@st.composite
def predictions(draw: st.DrawFn) -> Prediction:
    labels = draw(st.lists(LABELS, min_size=1, max_size=4, unique=True))
    return Prediction(
        classifier=ClassifierIdentity(
            name="cxr",
            algorithm=draw(WORDS),
            version=draw(WORDS),
            manufacturer=draw(WORDS),
            weights_sha256=draw(DIGESTS),
            parameters=draw(st.dictionaries(WORDS, WORDS, max_size=3)),
            demonstration=draw(st.booleans()),
        ),
        findings=tuple(
            Finding(label=label, score=draw(UNIT), raw=draw(UNIT), threshold=draw(UNIT)) for label in labels
        ),
        not_trained=tuple(draw(st.lists(WORDS, max_size=2))),
        notes=tuple(draw(st.lists(st.text(max_size=1100), max_size=2))),
    )


def compared(source: Dataset, told: Prediction, predecessor: Reference | None = None) -> None:
    instance = instance_of(source)
    result = BUILDER.build_after(source, instance, told, (predecessor,) if predecessor else ())
    expected = written(
        source,
        instance,
        told,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        predecessor=predecessor,
    )
    assert result.data == expected


@given(told=predictions())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_prediction_is_written_as_highdicom_writes_it(told: Prediction) -> None:
    compared(read(HEADER), told)


@pytest.mark.parametrize("demonstration", [False, True])
def test_all_findings_are_written_as_highdicom_writes_them(demonstration: bool) -> None:
    compared(read(HEADER), prediction(demonstration=demonstration))


@pytest.mark.parametrize(
    "changed",
    [
        {"TimezoneOffsetFromUTC": b"-1130 "},
        {"SOPClassUID": b"1.2.840.113619.4.27"},
        {"Modality": b"XR", "Rows": b"", "InstanceNumber": b""},
        {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": "Yamada=山田".encode("iso2022_jp")},
        {"PatientID": b"P" * 81, "IssuerOfPatientID": b"H", "PatientAge": b"062Y"},
    ],
    ids=["time zone", "private class", "little known", "Japanese", "long"],
)
def test_any_image_is_written_as_highdicom_writes_it(changed: dict[str, bytes]) -> None:
    compared(read({**HEADER, **changed}), prediction(labels=2))


@pytest.mark.skipif(not SHARED_DICOM.exists(), reason="no ../shared/data")
def test_every_sample_is_written_as_highdicom_writes_it() -> None:
    paths = sorted({context_uid(path): path for path in SHARED_DICOM.glob("chest*/*.dcm")}.values())
    assert paths
    for path in paths:
        compared(dcmread(path, force=True, stop_before_pixels=True), prediction(labels=1))


def context_uid(path: Path) -> str:
    return context_of(dcmread(path, force=True, stop_before_pixels=True)).sop_instance_uid


def test_a_predecessor_is_written_as_pydicom_writes_it() -> None:
    compared(read(HEADER), prediction(labels=1), reference())
