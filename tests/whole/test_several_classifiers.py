"""Several classifiers look at one image: each makes its own report, and one that is dead holds up none of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest

from router.classify.phantom import phantom_dicom
from router.core.findings import NotAnalysed, Prediction
from tests.classify import own
from tests.peers import StoreScp, dcmsend, success_count
from tests.whole.router_process import EVERYTHING_RULE, RouterProcess, destination

pytest.importorskip("torch")
pytestmark = pytest.mark.peer("dcmtk")

RULE = """
[[rules]]
name = "chest radiographs"
when = { Modality = ["CR", "DX"] }
classify = ["dead", "cxr", "ours", "twin"]
deliver = ["pacs"]
results = ["sr"]
results_to = ["pacs"]
"""


def test_each_classifier_reports_on_its_own_and_a_dead_one_on_nothing(tmp_path: Path, storescp: StoreScp) -> None:
    weights = own.write(tmp_path / "weights")
    tables = (
        destination("pacs", storescp.ae_title, storescp.port),
        f'\n[classifiers.ours]\ntype = "xrv"\nweights = {json.dumps(str(weights))}\n',
        '\n[classifiers.dead]\ntype = "demo"\ntime_limit_s = 0.001\n',  # nothing decodes in a millisecond
        '\n[classifiers.twin]\ntype = "demo"\n',  # computes what cxr does
    )
    image = phantom_dicom(7, rows=256, columns=256)
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    with RouterProcess(tmp_path / "node", *tables, rules=(RULE, EVERYTHING_RULE)) as node:
        assert success_count(dcmsend(node.port, tmp_path / "image.dcm")) == 1
        node.settle()
        [status] = node.statuses([image.SOPInstanceUID])
        assert node.events("worker.crashed") == []
    assert status is not None
    kinds = {name: type(outcome) for name, outcome in status.outcomes.items()}
    assert kinds == {"cxr": Prediction, "ours": Prediction, "twin": Prediction, "dead": NotAnalysed}
    dead = status.outcomes["dead"]
    assert isinstance(dead, NotAnalysed)
    assert dead.code == "child_died"

    arrived = {uid: pydicom.dcmread(path) for uid, path in storescp.received().items()}
    reports = [ds for ds in arrived.values() if ds.Modality == "SR"]
    assert image.SOPInstanceUID in arrived
    assert len(reports) == 2, "cxr and twin compute the same: one and the same document"
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({ds[keyword].value for ds in reports}) == 2, keyword
    assert {ds.StudyInstanceUID for ds in reports} == {image.StudyInstanceUID}
    descriptions = sorted(ds.SeriesDescription for ds in reports)
    assert "chest-2026-03" in " ".join(descriptions)
    assert "DEMONSTRATION" in " ".join(descriptions).upper()
