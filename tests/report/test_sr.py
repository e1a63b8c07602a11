"""The SR of a prediction: valid, deterministic, in the image's study, and readable by others."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_charset_files, get_testdata_file

from router import registry
from router.core.findings import Finding, Prediction
from router.core.provenance import is_ours
from router.errors import NotReportable
from router.report.check import check
from router.report.codes import FINDINGS, PRIVATE_SCHEME, Confirmation, finding_code
from router.report.sr import SrBuilder, series_description
from tests.report.made import HEADER, SHARED_DICOM, instance_of, prediction, read, reference, tool, validated

SHARED_CHESTS = sorted(SHARED_DICOM.glob("chest*/*.dcm"))
#: Of pydicom itself, without a download: names in a dozen scripts (those of chrS* have no UIDs), a Secondary Capture, private elements.
PYDICOM_FILES = [
    *(Path(str(path)) for path in get_charset_files("chr[!S]*.dcm")),
    *(Path(str(get_testdata_file(name, download=False))) for name in ("SC_rgb.dcm", "MR_small.dcm", "CT_small.dcm")),
]


@pytest.fixture(scope="module")
def builder() -> SrBuilder:
    return SrBuilder()


def source_of(path: Path) -> Dataset:
    return dcmread(path, force=True, stop_before_pixels=True)


@pytest.mark.skipif(not SHARED_CHESTS, reason="no ../shared/data")
@pytest.mark.parametrize("path", SHARED_CHESTS, ids=lambda path: path.stem)
def test_every_real_radiograph_gives_an_sr_without_an_error(path: Path, builder: SrBuilder, tmp_path: Path) -> None:
    source = source_of(path)
    labels = 18 if path.parent.name == "chest" else 3  # the others are the same few images in other encodings
    result = builder.build(source, instance_of(source), prediction(labels=labels))
    assert check(result, source) == []
    validated(result.data, tmp_path)


@pytest.mark.parametrize("path", PYDICOM_FILES, ids=lambda path: path.stem)
def test_every_kind_of_image_gives_an_sr_without_an_error(path: Path, builder: SrBuilder, tmp_path: Path) -> None:
    source = source_of(path)
    result = builder.build(source, instance_of(source), prediction(labels=3))
    assert check(result, source) == []
    validated(result.data, tmp_path)


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG1_J2KR.dcm"])
def test_the_reference_radiograph_of_pydicom_data_gives_an_sr_without_an_error(
    name: str, builder: SrBuilder, tmp_path: Path
) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom-data with {name} is not installed")
    source = source_of(Path(str(path)))
    result = builder.build(source, instance_of(source), prediction(demonstration=True))
    assert check(result, source) == []
    validated(result.data, tmp_path)


def test_it_is_found_by_its_entry_point() -> None:
    assert registry.load("router.results", "sr") is SrBuilder


def test_the_sr_stands_in_a_series_of_its_own_in_the_study_of_the_image(builder: SrBuilder) -> None:
    source = read(HEADER)
    result = builder.build(source, instance_of(source), prediction())
    document = dcmread(BytesIO(result.data))
    assert document.StudyInstanceUID == source.StudyInstanceUID == result.study_instance_uid
    assert document.SeriesInstanceUID == result.series_instance_uid != source.SeriesInstanceUID
    assert document.SOPInstanceUID == result.sop_instance_uid != source.SOPInstanceUID
    other = read({**HEADER, "SOPInstanceUID": b"1.2.826.0.1.3680043.8.498.1.4"})
    assert builder.build(other, instance_of(other), prediction()).series_instance_uid == result.series_instance_uid


def test_the_same_arguments_give_the_same_bytes_in_another_process(builder: SrBuilder) -> None:
    code = (
        "import sys, hashlib; from tests.report.made import *; from router.report.sr import SrBuilder;"
        "s = read(HEADER); print(hashlib.sha256(SrBuilder().build(s, instance_of(s), prediction()).data).hexdigest())"
    )
    root = Path(__file__).resolve().parents[2]
    told = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=root,
            env={"PYTHONPATH": str(root), "PYTHONHASHSEED": seed, "TZ": zone, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(told) == 1
    assert len(told.pop().strip()) == 64


def test_the_uid_changes_with_everything_that_changes_the_document(builder: SrBuilder) -> None:
    source = read(HEADER)
    given = instance_of(source)
    likewise = prediction()
    lowered = tuple(replace(finding, threshold=0.3) for finding in likewise.findings)
    uids = [
        builder.build(source, given, likewise).sop_instance_uid,
        builder.build(source, given, prediction(weights="c1" * 32)).sop_instance_uid,
        builder.build(source, given, prediction(preprocessing="2")).sop_instance_uid,
        builder.build(source, given, prediction(demonstration=True)).sop_instance_uid,
        builder.build(source, given, replace(likewise, findings=lowered)).sop_instance_uid,
        builder.build(source, instance_of(source, digest="5b" * 32), likewise).sop_instance_uid,
        builder.build_after(source, given, likewise, (reference(),)).sop_instance_uid,
    ]
    assert len(set(uids)) == len(uids)


def test_the_uid_does_not_depend_on_when_the_image_came_or_what_the_classifier_is_called_here(
    builder: SrBuilder,
) -> None:
    source = read(HEADER)
    given = instance_of(source)
    renamed = replace(prediction(), classifier=replace(prediction().classifier, name="chest2"))
    later = replace(given, received_at=given.received_at + timedelta(days=1))
    first = builder.build(source, given, prediction())
    assert builder.build(source, later, renamed).sop_instance_uid == first.sop_instance_uid
    assert builder.build(source, given, renamed).data == first.data


def test_a_changed_writer_does_not_reuse_a_uid(monkeypatch: pytest.MonkeyPatch, builder: SrBuilder) -> None:
    source = read(HEADER)
    before = builder.build(source, instance_of(source), prediction()).sop_instance_uid
    monkeypatch.setattr("router.report.codes.WRITER_VERSION", "another")
    assert SrBuilder().build(source, instance_of(source), prediction()).sop_instance_uid != before


def test_times_are_when_the_image_came_in_its_own_zone(builder: SrBuilder) -> None:
    plain = read(HEADER)
    document = dcmread(BytesIO(builder.build(plain, instance_of(plain), prediction()).data))
    assert (document.ContentDate, document.ContentTime) == ("20250102", "101112.345678")
    assert (document.InstanceCreationDate, document.InstanceCreationTime) == ("20250102", "101112.345678")
    zoned = read({**HEADER, "TimezoneOffsetFromUTC": b"-1130 "})
    document = dcmread(BytesIO(builder.build(zoned, instance_of(zoned), prediction()).data))
    assert (document.ContentDate, document.ContentTime) == ("20250101", "224112.345678")
    assert document.TimezoneOffsetFromUTC == "-1130"
    assert {item.ContributionDateTime for item in document.ContributingEquipmentSequence} == {
        "20250102101112.345678+0000"
    }


def test_a_router_node_recognises_the_sr_by_its_contributing_equipment(builder: SrBuilder) -> None:
    source = read(HEADER)
    document = dcmread(BytesIO(builder.build(source, instance_of(source), prediction()).data))
    ours = [
        is_ours(
            manufacturer=item.Manufacturer,
            model_name=item.ManufacturerModelName,
            purpose_code=item.PurposeOfReferenceCodeSequence[0].CodeValue,
            purpose_scheme=item.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator,
        )
        for item in document.ContributingEquipmentSequence
    ]
    assert ours == [False, True]


def test_a_demonstration_says_so_in_series_content_and_equipment(builder: SrBuilder, tmp_path: Path) -> None:
    source = read(HEADER)
    result = builder.build(source, instance_of(source), prediction(demonstration=True))
    document = dcmread(BytesIO(result.data))
    assert "DEMONSTRATION" in document.SeriesDescription
    assert document.SeriesDescription.endswith("NOT FOR DIAGNOSIS")
    dump = validated(result.data, tmp_path)
    assert "trained on drawings, not on patients" in dump
    assert dump.count("demonstration=yes: trained on drawings, no clinical meaning") == len(FINDINGS)
    assert all("no clinical meaning" in item.ContributionDescription for item in document.ContributingEquipmentSequence)
    serious = dcmread(BytesIO(builder.build(source, instance_of(source), prediction()).data))
    assert "drawings" not in str(serious)
    assert "NOT FOR DIAGNOSIS" in serious.SeriesDescription


def test_the_warning_is_never_what_is_cut_from_a_long_series_description() -> None:
    long = replace(prediction().classifier, algorithm="x" * 200)
    assert len(series_description(long)) == 64
    assert series_description(long).endswith(" NOT FOR DIAGNOSIS")
    assert len(series_description(replace(long, demonstration=True))) <= 64


def test_highdicom_reads_the_same_numbers_back(builder: SrBuilder, tmp_path: Path) -> None:
    import highdicom
    from pydicom.sr.coding import Code

    source = read(HEADER)
    told = prediction()
    path = tmp_path / "sr.dcm"
    path.write_bytes(builder.build(source, instance_of(source), told).data)
    groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
    assert len(groups) == len(told.findings) == 18
    for group, finding in zip(groups, told.findings, strict=True):
        row = finding_code(finding.label)
        assert group.tracking_identifier == finding.label
        assert (group.finding_type.value, group.finding_type.scheme_designator) == row.code[:2]
        assert row.site is not None
        assert [(site.value.value, site.value.scheme_designator) for site in group.finding_sites] == [row.site[:2]]
        (number,) = group.get_measurements(name=Code("111012", "DCM", "Certainty of Finding"))
        assert number.value == pytest.approx(100 * finding.score, abs=0.00501)
        (answer,) = [item for item in group.get_qualitative_evaluations() if item.name == group.finding_type]
        assert answer.value.meaning == ("Present" if finding.present else "Absent")


def test_a_label_without_a_code_of_its_own_is_still_valid(builder: SrBuilder, tmp_path: Path) -> None:
    source = read(HEADER)
    strange = ("Tuberkulose, älter", "Tuberkulose, älter als das", "结核", "A" * 90)
    told = replace(prediction(), findings=tuple(Finding(label=label, score=0.7, raw=0.6) for label in strange))
    result = builder.build(source, instance_of(source), told)
    assert check(result, source) == []
    validated(result.data, tmp_path)
    document = dcmread(BytesIO(result.data))
    (scheme,) = document.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == PRIVATE_SCHEME
    rows = [finding_code(label) for label in strange]
    assert len({row.code.value for row in rows}) == len(strange)
    assert {row.confirmation for row in rows} == {Confirmation.LOCAL}
    assert rows[0].code.meaning == "Tuberkulose, alter"


def test_our_own_text_survives_a_character_set_that_cannot_hold_it(builder: SrBuilder, tmp_path: Path) -> None:
    source = read({**HEADER, "SpecificCharacterSet": b"ISO_IR 144", "PatientName": "Люкceмбypг".encode("iso8859_5")})
    told = prediction()
    told = replace(told, notes=("größer",), classifier=replace(told.classifier, algorithm="Füller", version="β\\1"))
    result = builder.build(source, instance_of(source), told)
    assert check(result, source) == []
    validated(result.data, tmp_path)
    assert dcmread(BytesIO(result.data)).PatientName == "Люкceмбypг"


def test_a_parameter_of_the_classifier_does_not_replace_ours(builder: SrBuilder) -> None:
    source = read(HEADER)
    result = builder.build(source, instance_of(source), prediction(threshold="9%"))
    assert check(result, source) == []


def test_a_label_that_was_not_trained_is_named_but_has_no_score(builder: SrBuilder, tmp_path: Path) -> None:
    source = read(HEADER)
    dump = validated(builder.build(source, instance_of(source), prediction()).data, tmp_path)
    assert "Not trained, therefore not reported: Unheard Of." in dump
    assert '"Tracking Identifier")="Unheard Of"' not in dump


@pytest.mark.parametrize(
    "findings",
    [
        (),
        (Finding(label="Mass", score=0.1, raw=0.1), Finding(label="Mass", score=0.2, raw=0.1)),
        (Finding(label=" ", score=0.1, raw=0.1),),
        (Finding(label="Mass", score=float("nan"), raw=0.1),),
        (Finding(label="Mass", score=1.1, raw=0.1),),
        (Finding(label="Mass", score=0.1, raw=float("inf")),),
        (Finding(label="Mass", score=0.1, raw=0.1, threshold=-0.1),),
    ],
    ids=["none", "twice", "no name", "not a number", "above 1", "infinite", "threshold"],
)
def test_nonsense_is_not_reportable(findings: tuple[Finding, ...], builder: SrBuilder) -> None:
    source = read(HEADER)
    told = Prediction(classifier=prediction().classifier, findings=findings)
    with pytest.raises(NotReportable):
        builder.build(source, instance_of(source), told)


def test_another_image_than_the_received_one_is_not_reportable(builder: SrBuilder) -> None:
    source = read(HEADER)
    other = replace(instance_of(source), sop_instance_uid="1.2.3")
    with pytest.raises(NotReportable):
        builder.build(source, other, prediction())


def test_nothing_that_makes_or_checks_a_document_loads_highdicom() -> None:
    code = (
        "import sys; from tests.report.made import *; from router.report.sr import SrBuilder; s = read(HEADER);"
        "from router.report.check import check; check(SrBuilder().build(s, instance_of(s), prediction()), s);"
        "print('highdicom' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "False"


def test_dcmtk_makes_a_page_for_people_of_it(builder: SrBuilder, tmp_path: Path) -> None:
    source = read(HEADER)
    path, page = tmp_path / "sr.dcm", tmp_path / "sr.html"
    path.write_bytes(builder.build(source, instance_of(source), prediction(demonstration=True)).data)
    subprocess.run([tool("dsr2html"), str(path), str(page)], check=True, timeout=60)
    text = page.read_text(encoding="latin-1")
    for words in (
        "Imaging Measurement Report",
        "trained on drawings",
        "Pleural effusion",
        "Present (52101004, SCT)",
        "50.0 %",
    ):
        assert words in text, words
