"""The reports that are judged: ours by the real classify child, another router's by its own writer from the same findings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from router.core.findings import NotAnalysed, Prediction
from router.errors import RefusedError, RouterError
from router.node import child_argument
from router.offline import instance_in
from router.settings import ClassifierSettings, Settings
from router.work.analyst import ChildAnalyst


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One image and the document that came of it."""

    image: Path
    became: str
    """«classified», or the code of the reason why not, or why there is no document."""
    document: Path | None
    findings: tuple[tuple[str, float, bool], ...] = ()


def ours(settings: Settings, table: ClassifierSettings, images: Sequence[Path], folder: Path) -> Iterator[Reported]:
    """A report, or a «not analysed» document, of every image."""
    analyst = ChildAnalyst(
        command=[sys.executable, "-m", "router.child"],
        arguments=[child_argument(table)],
        time_limit_s=table.time_limit_s,
    )
    try:
        for number, image in enumerate(images):
            try:
                path = _as_sent(image, folder)
                analysis = analyst.analyse(
                    table.name, instance_in(settings, path), path.resolve(), ("sr", "not-analysed")
                )
            except (RefusedError, RouterError) as error:
                yield Reported(image=image, became=f"refused: {error}", document=None)
                continue
            if not analysis.results:
                yield Reported(image=image, became=f"no report: {analysis.not_reported}", document=None)
                continue
            document = folder / f"{number:03}-ours.dcm"
            document.write_bytes(analysis.results[0].data)
            match analysis.outcome:
                case Prediction() as prediction:
                    findings = tuple((f.label, f.score, f.present) for f in prediction.findings)
                    yield Reported(image=image, became="classified", document=document, findings=findings)
                case NotAnalysed() as why:
                    yield Reported(image=image, became=why.code, document=document)
    finally:
        analyst.close()


def _as_sent(image: Path, folder: Path) -> Path:
    """The file, or a copy with File Meta Information that fits its data set, as senders see it."""
    dataset = pydicom.dcmread(image, force=True)
    meta, uid = dataset.file_meta, dataset.get("SOPInstanceUID", "")
    whole = image.read_bytes()[128:132] == b"DICM"
    if whole and meta.get("MediaStorageSOPInstanceUID", uid) == uid:
        return image
    meta.MediaStorageSOPInstanceUID = uid
    if not whole:
        implicit, _ = dataset.original_encoding
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    copy = folder / image.name
    dataset.save_as(copy, enforce_file_format=True)
    return copy


def another(python: str, one: Reported, folder: Path) -> Path | None:
    """The same findings of the same image by dicom-ai-router 0.3.0 of the package index, which `python` has installed.

    Its own classifier is for nodules in CT; its documented contract for others is a list of lines of text.
    """
    document = folder / f"{one.image.parent.name}-{one.image.stem}-another.dcm"
    lines = [
        [label, f"{100 * score:.2f} % ({'Present' if present else 'Absent'})"] for label, score, present in one.findings
    ]
    answer = {"model": "demo-phantoms", "model_version": "1", "summary_lines": lines}
    words = [python, "-W", "ignore", "-c", _WRITE, str(one.image), str(document), json.dumps(answer)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    return document if done.returncode == 0 else None


_WRITE = """
import json, sys
import pydicom
from airouter.results import build_sr
image = pydicom.dcmread(sys.argv[1], force=True)
sr = build_sr(image, [image], json.loads(sys.argv[3]), str(image.SOPInstanceUID))
sr.save_as(sys.argv[2], enforce_file_format=True)
"""
