"""The classify child makes every kind of result object that a rule asks for, each by itself."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from router.core.findings import NotAnalysed, Prediction
from router.core.instance import InstanceKind, SopInstance
from router.node import child_argument
from router.receive.header import read_header
from router.settings import parse
from router.spool.part10 import data_set_offset
from router.work.analyst import ChildAnalyst
from tests.report.made import CR

ALL = ("sr", "heatmap", "gsps", "key-object", "pdf")


@pytest.fixture(scope="module")
def analyst() -> Iterator[ChildAnalyst]:
    table = parse({"classifiers": {"demo": {"type": "demo"}}}).classifiers["demo"]
    made = ChildAnalyst(
        command=[sys.executable, "-m", "router.child"], arguments=[child_argument(table)], time_limit_s=120
    )
    yield made
    made.close()


def phantom(shown: list[bool]) -> Dataset:
    from router.classify.phantom import phantom_dicom

    return phantom_dicom(106, rows=300, columns=256, findings=shown)


def saved(ds: Dataset, folder: Path) -> tuple[SopInstance, Path]:
    path = folder / "image.dcm"
    ds.save_as(path, enforce_file_format=True)
    instance = SopInstance(
        sop_instance_uid=ds.SOPInstanceUID,
        sop_class_uid=CR,
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        byte_count=path.stat().st_size,
        spool_key="key",
        received_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    return instance, path


def test_every_kind_is_made_in_one_study_and_recognised_by_any_router(analyst: ChildAnalyst, tmp_path: Path) -> None:
    instance, path = saved(phantom([True, False, True, False]), tmp_path)
    analysis = analyst.analyse("demo", instance, path, ALL)
    assert analysis.not_reported == ""
    assert [result.kind for result in analysis.results] == [
        InstanceKind.SR,
        InstanceKind.HEATMAP,
        InstanceKind.GSPS,
        InstanceKind.KEY_OBJECT,
        InstanceKind.PDF,
    ]
    again = analyst.analyse("demo", instance, path, ALL)
    assert [result.data for result in again.results] == [result.data for result in analysis.results]
    for result in analysis.results:
        ds = dcmread(BytesIO(result.data))
        assert ds.StudyInstanceUID == instance.study_instance_uid == result.study_instance_uid
        (tmp_path / "result.dcm").write_bytes(result.data)
        offset = data_set_offset(tmp_path / "result.dcm")
        header = read_header(
            BytesIO(result.data),
            offset=offset,
            byte_count=len(result.data) - offset,
            transfer_syntax_uid=result.transfer_syntax_uid,
            keywords=frozenset(("Modality",)),
        )
        assert header.made_by_router, "or it would be classified when it comes back"


def test_asking_for_pictures_changes_no_score(analyst: ChildAnalyst, tmp_path: Path) -> None:
    instance, path = saved(phantom([True, False, True, False]), tmp_path)
    assert analyst.analyse("demo", instance, path, ()).outcome == analyst.analyse("demo", instance, path, ALL).outcome


def test_maps_for_a_page_are_of_the_findings_and_lie_where_the_heatmap_has_them(
    analyst: ChildAnalyst, tmp_path: Path
) -> None:
    instance, path = saved(phantom([True, False, True, False]), tmp_path)
    asked = analyst.layers("demo", instance, path)
    assert asked.outcome == analyst.analyse("demo", instance, path, ()).outcome
    assert isinstance(asked.outcome, Prediction)
    present = sorted((-f.score, f.label) for f in asked.outcome.findings if f.present)
    assert [layer.finding.label for layer in asked.layers] == [label for _, label in present][:3]
    for layer in asked.layers:
        picture = np.asarray(Image.open(BytesIO(layer.png)))
        assert picture.shape == (512, 437, 4), "as the image, 300 x 256"
        assert (layer.cropped, layer.silent) == (True, False)
        colours, opacity = picture[..., :3].astype(int), picture[..., 3]
        assert set(map(tuple, colours[0][opacity[0] > 0])) == {(150, 150, 150)}, "above the square: hatched"
        hottest = np.unravel_index(int(np.where(colours[..., 0] == 150, 0, opacity).argmax()), opacity.shape)
        assert colours[hottest][1] < 60, "red"


def test_an_image_without_a_finding_gets_its_report_and_no_picture(analyst: ChildAnalyst, tmp_path: Path) -> None:
    instance, path = saved(phantom([False] * 4), tmp_path)
    analysis = analyst.analyse("demo", instance, path, ALL)
    assert isinstance(analysis.outcome, Prediction)
    assert [finding for finding in analysis.outcome.findings if finding.present] == []
    assert [result.kind for result in analysis.results] == [InstanceKind.SR]
    assert analysis.not_reported == "", "nothing to make is no error"


def test_an_image_that_is_not_analysed_gets_none(analyst: ChildAnalyst, tmp_path: Path) -> None:
    ds = phantom([True] * 4)
    ds.BodyPartExamined = "HAND"
    instance, path = saved(ds, tmp_path)
    analysis = analyst.analyse("demo", instance, path, ALL)
    assert isinstance(analysis.outcome, NotAnalysed)
    assert (analysis.results, analysis.not_reported) == ((), "")


def test_one_kind_that_cannot_be_made_holds_back_no_other(analyst: ChildAnalyst, tmp_path: Path) -> None:
    ds = phantom([True, False, True, False])
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", "US", [min(65535, 16 * n) for n in range(4096)])
    table.ModalityLUTType = "US"
    ds.ModalityLUTSequence = [table]
    instance, path = saved(ds, tmp_path)
    analysis = analyst.analyse("demo", instance, path, ALL)
    assert InstanceKind.GSPS not in [result.kind for result in analysis.results]
    assert len(analysis.results) == len(ALL) - 1
    assert "Modality LUT" in analysis.not_reported


def test_whose_image_it_is_nobody_knows_nothing_is_made_and_it_is_said_once(
    analyst: ChildAnalyst, tmp_path: Path
) -> None:
    ds = phantom([True, False, True, False])
    ds.SeriesInstanceUID = ""
    instance, path = saved(ds, tmp_path)
    analysis = analyst.analyse("demo", instance, path, ALL)
    assert analysis.results == ()
    assert analysis.not_reported.count("SeriesInstanceUID") == 1
    assert isinstance(analysis.outcome, Prediction), "it is classified all the same"
