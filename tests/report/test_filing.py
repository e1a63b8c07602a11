"""A real Orthanc files the report of every defective image in the study of that image, or nowhere."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from router.errors import NotReportable
from router.report.source import read_source, refuse_ambiguous
from router.report.sr import SrBuilder
from tests.peers import Orthanc
from tests.report.defects import DEFECTS, Defect
from tests.report.made import CR, HEADER, instance_of, meta, prediction
from tests.report.worse import WORSE

pytestmark = pytest.mark.peer("orthanc")

#: Orthanc 1.10 does not take these images themselves: they lack what it files by.
NOT_TAKEN_BY_ORTHANC = {
    "StudyInstanceUID absent",
    "StudyInstanceUID empty",
    "SeriesInstanceUID absent",
    "SeriesInstanceUID empty",
    "SOPInstanceUID absent",
    "SOPInstanceUID empty",
    "PatientID as OB",
    "UID of 300 characters",
}


def of_its_own(number: int) -> dict[str, bytes]:
    """A good header that shares no UID with another one, so that no report lands in the right study by chance."""
    uids = {
        keyword: f"1.2.826.0.1.3680043.8.498.7.{number}.{level}".encode()
        for level, keyword in enumerate(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), start=1)
    }
    return {**HEADER, **uids}


def posted(orthanc: Orthanc, data: bytes) -> dict[str, Any] | None:
    """Orthanc's answer, or None when it does not take the file."""
    try:
        answer = json.loads(orthanc.request("POST", "/instances", data))
    except urllib.error.HTTPError:
        return None
    return dict(answer)


def test_every_report_is_filed_in_the_study_of_its_image(orthanc: Orthanc, tmp_path: Path) -> None:
    builder = SrBuilder()
    path = tmp_path / "image.dcm"
    refused: set[str] = set()
    elsewhere: list[str] = []
    filed = unreported = 0
    for number, defect in enumerate((*DEFECTS, *WORSE), start=1):
        if defect.refused:
            continue
        data = defect.data_set(of_its_own(number))
        path.write_bytes(meta(sop_class(defect), f"1.2.826.0.1.3680043.8.498.7.{number}.3") + data)
        image = posted(orthanc, path.read_bytes())
        if image is None:
            refused.add(defect.name)
        try:
            source = read_source(path)
            refuse_ambiguous(source)
            report = builder.build(source, instance_of(read_source(path)), prediction(labels=1))
        except NotReportable:
            unreported += 1
            continue
        answer = posted(orthanc, report.data)
        if image is None or answer is None or answer["ParentStudy"] != image["ParentStudy"]:
            elsewhere.append(defect.name)
        filed += 1
    assert elsewhere == []
    assert refused == NOT_TAKEN_BY_ORTHANC
    assert filed > 200
    assert unreported == sum(bool(defect.not_reportable) for defect in (*DEFECTS, *WORSE))


def sop_class(defect: Defect) -> str:
    """As a sender takes it from the data set."""
    value = defect.changed.get("SOPClassUID", CR.encode())
    return value.decode() if isinstance(value, bytes) and value else CR
