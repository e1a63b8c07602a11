"""docs/readers.md is true: its code, taken out of the page, gives back what the classifier said of one image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest

from router.classify.phantom import phantom_dicom
from router.core.findings import Prediction, outcome_from_json
from router.report.fhir import bundle_of
from router.report.sr import SrBuilder
from router.report.told import told
from tests.peers import ROOT, Orthanc, run
from tests.report.made import RECEIVED_AT, instance_of

PAGE = (ROOT / "docs" / "readers.md").read_text(encoding="utf-8")
#: Number of the section -> its code.
CODE = {int(n): code for n, code in re.findall(r"^## (\d)\..*?^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)}

Findings = dict[str, tuple[float, float, bool]]


def names(section: int) -> dict[str, Any]:
    """What the code of a section defines."""
    defined: dict[str, Any] = {}
    exec(compile(CODE[section], f"docs/readers.md, {section}", "exec"), defined)
    return defined


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readers") / "chest.dcm"
    phantom_dicom(4, rows=256, columns=256).save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def told_on_the_command_line(image: Path) -> str:
    command = [sys.executable, "-m", "router", "classify", "--json", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=True, cwd=ROOT)
    return done.stdout


@pytest.fixture(scope="module")
def prediction(told_on_the_command_line: str) -> Prediction:
    (row,) = json.loads(told_on_the_command_line)
    outcome = outcome_from_json({"prediction": row["prediction"]})
    assert isinstance(outcome, Prediction)
    return outcome


@pytest.fixture(scope="module")
def said(prediction: Prediction) -> Findings:
    """What the classifier said, in percent as a report rounds it; some of it present, some absent."""
    findings = {f.label: (round(100 * f.score, 2), 100 * f.threshold, f.present) for f in prediction.findings}
    assert {present for _, _, present in findings.values()} == {True, False}, "draw another phantom"
    return findings


@pytest.fixture(scope="module")
def report(image: Path, prediction: Prediction) -> Path:
    """The SR of that very prediction."""
    source = pydicom.dcmread(image)
    path = image.with_name("sr.dcm")
    path.write_bytes(SrBuilder().build(source, instance_of(source), prediction).data)
    return path


def test_every_section_has_code() -> None:
    assert sorted(CODE) == [int(number) for number in re.findall(r"^## (\d)\.", PAGE, re.MULTILINE)]
    assert PAGE.count("```python") == len(CODE), "every block is run below"


def test_1_the_command_line(told_on_the_command_line: str, said: Findings) -> None:
    command = [sys.executable, "-c", CODE[1]]
    done = subprocess.run(
        command, input=told_on_the_command_line, capture_output=True, text=True, timeout=60, check=True
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert {label: (float(score), float(limit), verdict == "present") for label, score, limit, verdict in lines} == said


@pytest.mark.peer("orthanc")
def test_2_orthanc(orthanc: Orthanc, report: Path, said: Findings) -> None:
    orthanc.upload(report)
    uid = str(pydicom.dcmread(report).SOPInstanceUID)
    url = f"http://{orthanc.host}:{orthanc.http_port}"
    assert names(2)["findings"](url, orthanc.USER, orthanc.PASSWORD, uid) == said


def test_3_ohif_style(report: Path, said: Findings) -> None:
    assert names(3)["findings"](report) == said


@pytest.mark.peer("dcmtk")
def test_4_dsr2html(report: Path, said: Findings) -> None:
    page = report.with_name("sr.html")
    done = run("dsr2html", report, page)
    assert (done.returncode, done.stdout) == (0, "")
    assert names(4)["findings"](page.read_text()) == said


def test_5_highdicom(report: Path, said: Findings) -> None:
    assert names(5)["findings"](report) == said


def test_6_pydicom(report: Path, said: Findings) -> None:
    assert names(6)["findings"](report) == said


def test_7_fhir(report: Path, said: Findings) -> None:
    assert names(7)["findings"](json.dumps(bundle_of([(told(report), RECEIVED_AT)]))) == said


def test_a_reader_that_got_a_number_wrong_would_be_seen(report: Path, said: Findings) -> None:
    """The comparisons above can fail: one score in the document is changed."""
    document = pydicom.dcmread(report)
    group = document.ContentSequence[-1].ContentSequence[0].ContentSequence
    (number,) = (item for item in group if item.ValueType == "NUM")
    number.MeasuredValueSequence[0].NumericValue = "12.34"
    number.MeasuredValueSequence[0].FloatingPointValue = 12.34
    other = report.with_name("other.dcm")
    document.save_as(other)
    for section in (3, 5, 6):
        read_back = names(section)["findings"](other)
        assert [label for label in said if read_back[label] != said[label]] == [next(iter(said))]
