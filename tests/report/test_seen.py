"""Heatmap, presentation state, key object and PDF: valid, of the right patient, readable by others, and never of nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from router.classify.demo import DemoClassifier
from router.classify.phantom import phantom_dicom
from router.core.findings import Finding
from router.core.instance import InstanceKind
from router.core.ports import ResultObject
from router.errors import NotReportable
from router.report import picture as picture_module
from router.report.attachment import scored
from router.report.check import check
from router.report.context import IDENTITY, raw_value
from router.report.outline import outlines
from router.report.source import read_source, refuse_ambiguous
from tests.peers import Orthanc, dciodvfy, run
from tests.report.defects import DEFECTS, JAPANESE, KOREAN, Defect
from tests.report.made import HEADER, instance_of, meta, prediction, read
from tests.report.seen import BUILDERS, WINDOW, build, sight
from tests.report.worse import WORSE

KINDS = list(BUILDERS)
SUMMARY = "Error - Dicom dataset contains invalid data values for Value Representations"


def made(kind: str, source: Dataset | None = None, **findings: Any) -> ResultObject:
    result = build(kind, source or read(HEADER), prediction(**findings))
    assert result is not None
    return result


def document(result: ResultObject) -> Dataset:
    return dcmread(BytesIO(result.data))


# ---- what is made, and when


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_made_of_an_image_without_a_finding(kind: str) -> None:
    one = prediction(labels=3)
    none = replace(one, findings=tuple(replace(finding, score=0.49) for finding in one.findings))
    builder = BUILDERS[kind]()
    if hasattr(builder, "illustrate"):
        source = read(HEADER)
        asked = builder.illustrate(source, instance_of(source), none, lambda: pytest.fail("drawn for nobody"))
        assert asked is None
    else:
        assert build(kind, read(HEADER), none) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("demonstration", [False, True])
def test_each_kind_is_valid_and_passes_the_check(kind: str, demonstration: bool, tmp_path: Path) -> None:
    result = made(kind, demonstration=demonstration)
    assert check(result, read(HEADER)) == []
    path = tmp_path / "result.dcm"
    path.write_bytes(result.data)
    assert dciodvfy(path) == []
    assert run("dcmdump", path).returncode == 0
    ds = document(result)
    assert ds.StudyInstanceUID == HEADER["StudyInstanceUID"].decode()
    assert HEADER["SeriesInstanceUID"].decode() != ds.SeriesInstanceUID == result.series_instance_uid
    assert ds.SeriesDescription.endswith("NOT FOR DIAGNOSIS")
    assert ("DEMONSTRATION" in ds.SeriesDescription) == demonstration
    assert ds.ContributingEquipmentSequence[1].Manufacturer == "dicom-ai-router"


def test_kinds_have_series_and_uids_of_their_own() -> None:
    results = [made(kind) for kind in KINDS]
    for name in ("sop_instance_uid", "series_instance_uid", "sop_class_uid", "kind"):
        assert len({getattr(result, name) for result in results}) == len(KINDS)
    assert {document(result).SeriesNumber for result in results} == {9902, 9903, 9904, 9905}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_image_and_classifier_give_the_same_bytes_and_others_another_uid(kind: str) -> None:
    first = made(kind)
    assert made(kind).data == first.data
    assert made(kind, weights="c1" * 32).sop_instance_uid != first.sop_instance_uid
    assert made(kind, preprocessing="2").series_instance_uid != first.series_instance_uid
    other = read({**HEADER, "SOPInstanceUID": b"1.2.826.0.1.3680043.8.498.1.9"})
    assert made(kind, other).sop_instance_uid != first.sop_instance_uid
    assert made(kind, other).series_instance_uid == first.series_instance_uid


# ---- whose it is


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and pages are drawn once: no header has a part in them."""
    from router.report import page as page_module

    one = prediction(labels=2)
    drawn, paper = picture_module.picture(sight(one), one), page_module.page(sight(one), one)
    monkeypatch.setattr(picture_module, "picture", lambda *_: drawn)
    monkeypatch.setattr(page_module, "page", lambda *_: paper)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("place", range(len(KINDS)), ids=KINDS)
def test_headers_that_a_report_survives_are_survived_by_these_too(place: int, tmp_path: Path) -> None:
    """Kinds take turns: the code that meets the header is the same for all of them."""
    looked_at = 0
    for defect in [*DEFECTS, *WORSE][place :: len(KINDS)]:
        if defect.refused:
            continue
        # pydicom converts what it gives out, so nothing is asked of the source itself.
        source, instance = _received(defect, tmp_path), instance_of(_received(defect, tmp_path))
        if defect.not_reportable:
            with pytest.raises(NotReportable, match=defect.not_reportable):
                refuse_ambiguous(source)
                build(KINDS[place], source, prediction(labels=2), instance=instance)
            continue
        result = build(KINDS[place], source, prediction(labels=2), instance=instance)
        assert result is not None
        assert check(result, _received(defect, tmp_path)) == [], defect.name
        ds, source = document(result), _received(defect, tmp_path)
        for keyword in ("StudyInstanceUID", *IDENTITY):
            mine, theirs = raw_value(ds, keyword), raw_value(source, keyword)
            assert mine.rstrip(b"\0 ") == theirs.rstrip(b"\0 "), (defect.name, keyword)
        if not defect.inherited:
            path = tmp_path / "result.dcm"
            path.write_bytes(result.data)
            assert dciodvfy(path) == [], defect.name
            looked_at += 1
    assert looked_at > 20


def _received(defect: Defect, folder: Path) -> Dataset:
    path = folder / "image.dcm"
    path.write_bytes(meta() + defect.data_set())
    return read_source(path)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("terms", "name"),
    [(b"\\ISO 2022 IR 87", JAPANESE), (b"\\ISO 2022 IR 149", KOREAN), (b"ISO_IR 144", b"\xbb\xee\xda")],
)
def test_names_in_other_scripts_are_copied_byte_for_byte(kind: str, terms: bytes, name: bytes) -> None:
    ds = document(made(kind, read({**HEADER, "SpecificCharacterSet": terms, "PatientName": name}), labels=2))
    assert raw_value(ds, "PatientName").rstrip() == name
    assert raw_value(ds, "SpecificCharacterSet").rstrip() == terms


@pytest.mark.parametrize("kind", ["gsps", "key-object", "pdf"])
def test_no_word_of_the_patient_is_in_what_is_written_over_the_image(kind: str) -> None:
    secret = {"PatientName": b"Q7Q7^Q7 ", "PatientID": b"Q7Q7", "AccessionNumber": b"Q7Q7", "StudyID": b"Q7Q7"}
    ds = document(made(kind, read({**HEADER, **secret, "StudyDescription": b"Q7Q7"})))
    for keyword in (*secret, "StudyDescription"):
        del ds[keyword]
    assert "Q7" not in str(ds)
    if kind == "pdf":
        assert b"Q7Q7" not in ds.EncapsulatedDocument


# ---- heatmap


@pytest.mark.peer("dcmtk")
def test_others_read_the_picture_that_was_drawn(tmp_path: Path) -> None:
    one = prediction(labels=4)
    drawn = picture_module.picture(sight(one), one).astype(int)
    path = tmp_path / "heatmap.dcm"
    path.write_bytes(made("heatmap", labels=4).data)
    ours = dcmread(path)
    assert ours.PhotometricInterpretation == "YBR_FULL_422"
    assert ours.pixel_array.shape == drawn.shape
    done = run("dcmj2pnm", "--write-bmp", path, tmp_path / "picture.bmp")
    assert done.returncode == 0, done.stdout
    theirs = np.asarray(Image.open(tmp_path / "picture.bmp").convert("RGB")).astype(int)
    for pixels in (theirs, np.asarray(Image.open(BytesIO(_frame(ours))).convert("RGB")).astype(int)):
        assert pixels.shape == drawn.shape
        assert np.abs(pixels - drawn).mean() < 3
    assert ours.LossyImageCompression == "01"
    assert float(ours.LossyImageCompressionRatio) == pytest.approx(drawn.size / len(_frame(ours)), rel=0.01)
    assert ours.SourceImageSequence[0].ReferencedSOPInstanceUID == HEADER["SOPInstanceUID"].decode()


def _frame(ds: Dataset) -> bytes:
    from pydicom.encaps import generate_frames

    return bytes(next(generate_frames(ds.PixelData, number_of_frames=1))).rstrip(b"\0")


def test_words_are_large_enough_for_a_phone_and_lie_beside_the_image() -> None:
    one = prediction(labels=8)
    seen = sight(one, scale=1 / 2)
    whole, alone = picture_module.picture(seen, one), picture_module.radiograph(seen)
    assert whole.shape[1] == alone.shape[1]
    above = next(
        y for y in range(whole.shape[0]) if np.array_equal(whole[y : y + alone.shape[0]], alone)
    )  # not a pixel of the image has text on it
    below = whole[above + alone.shape[0] :]
    assert picture_module._TEXT * 360 >= 12, "points high on a screen 360 wide"
    bright = (below.max(axis=2) > 150).sum(axis=1) > 0
    lines = np.diff(np.flatnonzero(np.diff(np.concatenate(([False], bright, [False])).astype(int))))[::2]
    assert lines.max() * 360 / whole.shape[1] >= 9


def test_words_name_finding_score_threshold_classifier_and_what_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    broken = picture_module._broken

    def noted(text: str, *rest: Any) -> Any:
        said.append(text)
        return broken(text, *rest)

    monkeypatch.setattr(picture_module, "_broken", noted)
    one = prediction(demonstration=True)
    picture_module.picture(sight(one), one)
    text = "\n".join(said)
    strongest = max(one.findings, key=lambda finding: finding.score)
    assert "NOT FOR DIAGNOSTIC USE" in text
    assert "DEMONSTRATION: trained on drawings" in text
    assert f"{strongest.label.replace('_', ' ')}: score {scored(strongest)}, threshold 0.50" in text
    assert one.classifier.algorithm in text
    assert one.classifier.version in text
    assert "Hatched: outside the square" in text
    assert "more: see the report" in text, "18 labels, many of them present"
    said.clear()
    square = prediction(labels=3)
    picture_module.picture(sight(square, rows=800, columns=800), square)
    assert "Hatched" not in "\n".join(said)
    assert "DEMONSTRATION" not in "\n".join(said)


def test_what_was_not_seen_is_dark_and_hatched_and_what_is_hot_is_coloured() -> None:
    one = prediction(labels=2)
    seen = sight(one, rows=1024, columns=2048, scale=1 / 2)
    drawn = picture_module.radiograph(seen).astype(int)
    outside, inside = drawn[:, 1000:1020], drawn[:, 620:640]
    grey = seen.grey[0, 1000:1020].astype(int)
    assert (outside[:, :, 0] < 0.5 * grey).mean() > 0.8
    assert (outside == 120).all(axis=2).mean() == pytest.approx(2 / 16, abs=0.03)
    assert np.abs(outside - outside[:, :, :1]).max() == 0, "no colour where nothing was seen"
    x, y = (round(place) for place in seen.heats[0].hottest)
    ring = drawn[y - 40 : y + 40, x - 40 : x + 40]
    assert (ring[:, :, 0] - ring[:, :, 2]).max() > 80
    assert np.abs(inside[:, :, 0] - inside[:, :, 2]).max() < 80


def test_a_score_is_never_called_certain_that_is_not() -> None:
    def finding(score: float) -> Finding:
        return Finding(label="x", score=score, raw=score)

    assert [scored(finding(s)) for s in (1.0, 0.99999, 0.9951, 0.994, 0.5)] == [
        "1.00",
        ">0.99",
        ">0.99",
        "0.99",
        "0.50",
    ]


# ---- presentation state


@pytest.mark.peer("dcmtk")
def test_dcmtk_finds_no_fault_in_a_presentation_state(tmp_path: Path) -> None:
    path = tmp_path / "state.dcm"
    path.write_bytes(made("gsps").data)
    done = subprocess.run(["dcmpschk", str(path)], capture_output=True, text=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert "Testing" in said[0]
    # Its pattern for date and time does not know a plus (3.6.7: it passes «-0100» and refuses «+0000»).
    assert {line for line in said if "Affected attribute" in line} <= {
        "E:    Affected attribute: ContributionDateTime (0018,a002), Type DT"
    }
    assert path.stat().st_size < 8000


def test_outlines_and_edge_lie_where_they_belong_in_the_original() -> None:
    one = prediction(labels=2)
    result = build("gsps", read(HEADER), one)
    assert result is not None
    annotation = document(result).GraphicAnnotationSequence[0]
    graphics = [np.asarray(graphic.GraphicData, float).reshape(-1, 2) for graphic in annotation.GraphicObjectSequence]
    edge = graphics[-1]
    assert edge.tolist() == [[0, 256], [1536, 256], [1536, 1792], [0, 1792], [0, 256]]
    seen = sight(one)
    for heat, outline in zip(seen.heats, graphics, strict=False):
        assert (outline.min(axis=0) + outline.max(axis=0)) / 2 == pytest.approx(
            [heat.hottest[0] * 8, heat.hottest[1] * 8], abs=30
        )
        assert outline[0].tolist() == outline[-1].tolist()
    words = "\n".join(text.UnformattedTextValue for text in annotation.TextObjectSequence)
    assert "AI RESULT - NOT FOR DIAGNOSTIC USE" in words


def test_a_presentation_state_shows_the_image_as_the_picture_does() -> None:
    one = prediction(labels=2)
    for window, shape in (
        (replace(WINDOW, inverted=True, slope=2.0, intercept=-100.0), "INVERSE"),
        (replace(WINDOW, centre=1.5, function="SIGMOID"), "IDENTITY"),
    ):
        result = build("gsps", read(HEADER), one, sight(one, window=window))
        assert result is not None
        ds = document(result)
        voi = ds.SoftcopyVOILUTSequence[0]
        assert (ds.PresentationLUTShape, voi.VOILUTFunction) == (shape, window.function)
        assert (voi.WindowCenter, voi.WindowWidth) == (window.centre, window.width)
        assert ds.get("RescaleSlope", 1) == window.slope
        assert ds.get("RescaleIntercept", 0) == window.intercept
    with pytest.raises(NotReportable, match="Modality LUT"):
        build("gsps", read(HEADER), one, sight(one, window=None))


def test_outlines_follow_the_edge_and_leave_out_what_is_tiny() -> None:
    y, x = np.indices((200, 300))
    values = np.maximum(10 - np.hypot(x - 80, y - 120) / 5, 10 - np.hypot(x - 220, y - 60) / 2.5).astype(np.float32)
    values[0, 0] = 9
    polygons = outlines(values)
    assert len(polygons) == 2
    for polygon, (at_x, at_y, radius) in zip(polygons, ((80, 120, 25), (220, 60, 12.5)), strict=True):
        distances = np.hypot(*(np.asarray(polygon) - (at_x + 0.5, at_y + 0.5)).T)
        assert np.abs(distances - radius).max() < 2.5
        assert 6 < len(polygon) < 60
    assert outlines(np.zeros((50, 50), np.float32)) == []
    assert outlines(np.full((50, 50), 3, np.float32)) == [[(0, 0), (50, 0), (50, 50), (0, 50)]]


# ---- key object and PDF


def test_highdicom_reads_the_key_object() -> None:
    hd = pytest.importorskip("highdicom")
    ds = document(made("key-object", labels=3))
    selection = hd.ko.KeyObjectSelectionDocument.from_dataset(ds)
    assert selection.content.get_references()[0].referenced_sop_instance_uid == HEADER["SOPInstanceUID"].decode()
    assert ds.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    texts = [item.TextValue for item in ds.ContentSequence if item.ValueType == "TEXT"]
    assert any("NOT FOR DIAGNOSIS" in text and "Effusion" in text for text in texts) or "Atelectasis" in str(texts)


def test_the_page_says_every_finding_in_text_that_can_be_searched() -> None:
    one = prediction(demonstration=True)
    paper = bytes(document(made("pdf", demonstration=True)).EncapsulatedDocument)
    text = _text_of(paper)
    for finding in one.findings:
        assert finding.label.replace("_", " ") in text
    for words in ("NOT FOR DIAGNOSTIC USE", "DEMONSTRATION", "Threshold", "at or above", one.classifier.weights_sha256):
        assert words in text
    assert paper.count(b"/Type /Page\n") == 1


def _text_of(paper: bytes) -> str:
    """The strings that its only page draws."""
    import base64
    import re
    import zlib

    streams = re.findall(rb"stream\r?\n(.*?)endstream", paper, re.DOTALL)
    for stream in streams:
        try:
            content = zlib.decompress(base64.a85decode(stream.strip().removesuffix(b"~>")))
        except (ValueError, zlib.error):
            continue
        if b" Tj" in content:
            drawn = re.findall(rb"\((.*?)\) Tj", content)
            return b"\n".join(drawn).decode("latin-1").replace("\\(", "(").replace("\\)", ")")
    return ""


# ---- what the check holds back


def _without(keyword: str) -> Callable[[Dataset], Any]:
    return lambda ds: ds.__delitem__(keyword)


def _set(keyword: str, value: Any) -> Callable[[Dataset], Any]:
    return lambda ds: setattr(ds, keyword, value)


def _graphic(ds: Dataset) -> Dataset:
    return ds.GraphicAnnotationSequence[0].GraphicObjectSequence[0]


SABOTAGE: list[tuple[str, Callable[[Dataset], Any], str]] = [
    *((kind, _set("PatientID", "P-2"), "PatientID is not that of the image") for kind in KINDS),
    *((kind, _without("ContributingEquipmentSequence"), "does not name the router") for kind in KINDS),
    *((kind, _set("SeriesDescription", "AI"), "not for diagnosis") for kind in KINDS),
    *((kind, _set("Modality", "CR"), "not those of its kind") for kind in KINDS),
    ("heatmap", _without("SourceImageSequence"), "source image is not exactly"),
    ("heatmap", _set("BurnedInAnnotation", "NO"), "BurnedInAnnotation is not YES"),
    ("heatmap", _without("LossyImageCompression"), "LossyImageCompression is not 01"),
    ("heatmap", _set("Rows", 17), "not what the header says"),
    ("heatmap", lambda ds: setattr(ds, "PixelData", ds.PixelData[:-3000] + bytes(3000)), ""),
    ("gsps", _without("ReferencedSeriesSequence"), "presented image is not exactly"),
    ("gsps", _without("PresentationLUTShape"), "PresentationLUTShape is empty"),
    ("gsps", lambda ds: setattr(_graphic(ds), "NumberOfGraphicPoints", 2), "not as many points"),
    ("gsps", lambda ds: setattr(_graphic(ds), "GraphicData", [-5.0] * len(_graphic(ds).GraphicData)), "outside"),
    ("gsps", lambda ds: ds.GraphicAnnotationSequence[0].pop("TextObjectSequence"), "no text says"),
    ("key-object", lambda ds: setattr(ds.ConceptNameCodeSequence[0], "CodeValue", "113001"), "of interest"),
    ("key-object", lambda ds: ds.ContentSequence.pop(), "does not point at exactly"),
    ("key-object", _without("CurrentRequestedProcedureEvidenceSequence"), "does not point at exactly"),
    ("pdf", _set("EncapsulatedDocumentLength", 5), "not as long"),
    ("pdf", lambda ds: setattr(ds, "EncapsulatedDocument", b"x" * len(ds.EncapsulatedDocument)), "no whole PDF"),
    ("pdf", _without("SourceInstanceSequence"), "source instance is not exactly"),
]


@pytest.fixture(scope="module")
def good() -> dict[str, ResultObject]:
    return {kind: made(kind, labels=2) for kind in KINDS}


@pytest.mark.parametrize("number", range(len(SABOTAGE)))
def test_a_broken_object_is_held_back(number: int, good: dict[str, ResultObject]) -> None:
    kind, change, problem = SABOTAGE[number]
    ds = document(good[kind])
    change(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    problems = check(replace(good[kind], data=buffer.getvalue()), read(HEADER))
    assert any(problem in found for found in problems), problems


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_object_written_again_still_passes_and_half_of_it_does_not(
    kind: str, good: dict[str, ResultObject]
) -> None:
    buffer = BytesIO()
    document(good[kind]).save_as(buffer)
    assert check(replace(good[kind], data=buffer.getvalue()), read(HEADER)) == []
    for length in range(200, len(good[kind].data), len(good[kind].data) // 7):
        assert check(replace(good[kind], data=good[kind].data[:length]), read(HEADER)) != []


# ---- at the archive


@pytest.mark.peer("orthanc")
def test_orthanc_files_all_kinds_beside_the_image_and_shows_the_picture(orthanc: Orthanc, tmp_path: Path) -> None:
    image = phantom_dicom(106, rows=700, columns=512, photometric="MONOCHROME1", findings=[True, False, True, False])
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    classifier = DemoClassifier(name="demo", settings=DemoClassifier.Settings())
    classifier.load()
    look = classifier.look(image)
    seen = look.sight()

    def post(data: bytes) -> dict[str, Any]:
        return dict(json.loads(orthanc.request("POST", "/instances", data)))

    study = post((tmp_path / "image.dcm").read_bytes())["ParentStudy"]
    for kind in KINDS:
        result = build(kind, image, look.prediction, seen)
        assert result is not None
        (tmp_path / "result.dcm").write_bytes(result.data)
        assert check(result, image) == []
        assert dciodvfy(tmp_path / "result.dcm") == []
        stored = post(result.data)
        assert (stored["Status"], stored["ParentStudy"]) == ("Success", study)
        assert orthanc.request("GET", f"/instances/{stored['ID']}/file") == result.data
        if result.kind is InstanceKind.HEATMAP:
            shown = Image.open(BytesIO(orthanc.request("GET", f"/instances/{stored['ID']}/preview"))).convert("RGB")
            drawn = picture_module.picture(seen, look.prediction).astype(int)
            assert np.abs(np.asarray(shown).astype(int) - drawn).mean() < 3
        if result.kind is InstanceKind.PDF:
            assert orthanc.request("GET", f"/instances/{stored['ID']}/pdf").startswith(b"%PDF")
