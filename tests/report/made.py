"""Headers drawn as raw bytes, made-up predictions, and the validators' voices."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword

from router.core.findings import ClassifierIdentity, Finding, Prediction
from router.core.instance import Reference, SopInstance
from router.report.codes import FINDINGS

SHARED_DICOM = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
CR = "1.2.840.10008.5.1.4.1.1.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
RECEIVED_AT = datetime(2025, 1, 2, 10, 11, 12, 345678, tzinfo=UTC)

#: A radiograph's header without a defect: DICOM keyword -> encoded value.
HEADER: Mapping[str, bytes] = {
    "SpecificCharacterSet": b"ISO_IR 100",
    "SOPClassUID": CR.encode(),
    "SOPInstanceUID": b"1.2.826.0.1.3680043.8.498.1.3",
    "StudyDate": b"20250101",
    "StudyTime": b"101112",
    "AccessionNumber": b"A4711 ",
    "Modality": b"CR",
    "ReferringPhysicianName": b"Referrer^Ruth ",
    "StudyDescription": b"Chest PA",
    "PatientName": b"Phantom^Drawn ",
    "PatientID": b"P-1 ",
    "PatientBirthDate": b"19700102",
    "PatientSex": b"F ",
    "StudyInstanceUID": b"1.2.826.0.1.3680043.8.498.1.1",
    "SeriesInstanceUID": b"1.2.826.0.1.3680043.8.498.1.2",
    "StudyID": b"S1",
    "SeriesNumber": b"1 ",
    "InstanceNumber": b"7 ",
    "Rows": struct.pack("<H", 2048),
    "Columns": struct.pack("<H", 1536),
}
_LOOKED_AT: dict[bytes, list[str]] = {}
_DUMPED: dict[bytes, str] = {}
_LONG = ("OB", "OW", "SQ", "UN", "UT")


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element in explicit VR little endian, its value as it is."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    return head + (struct.pack("<xxI", len(value)) if vr in _LONG else struct.pack("<H", len(value))) + value


def encoded(header: Mapping[str, bytes | tuple[str, bytes]]) -> bytes:
    """A data set in explicit VR little endian: no value is looked at, odd lengths get the padding of their VR."""
    out = []
    for keyword, given in header.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        vr, value = given if isinstance(given, tuple) else (dictionary_VR(tag), given)
        pad = b"\0" if vr in ("UI", "OB", "UN") else b" "
        out.append((tag, element(tag, vr, value + pad * (len(value) % 2))))
    return b"".join(data for _, data in sorted(out))


def meta(sop_class: str = CR, sop_instance: str = "1.2.3", transfer_syntax: str = EXPLICIT_LITTLE) -> bytes:
    """Preamble and File Meta Information."""
    body = element(0x00020001, "OB", b"\0\1")
    for tag, uid in ((0x00020002, sop_class), (0x00020003, sop_instance), (0x00020010, transfer_syntax)):
        body += element(tag, "UI", uid.encode() + b"\0" * (len(uid) % 2))
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(body))) + body


def read(header: Mapping[str, bytes | tuple[str, bytes]]) -> Dataset:
    """The header as the router reads it from a file."""
    return dcmread(BytesIO(meta() + encoded(header)), force=True)


def instance_of(source: Dataset, *, digest: str = "5a" * 32, received_at: datetime = RECEIVED_AT) -> SopInstance:
    """What the receiving side knows of it."""
    return SopInstance(
        sop_instance_uid=str(source.get("SOPInstanceUID", "")),
        sop_class_uid=str(source.get("SOPClassUID", CR)),
        study_instance_uid=str(source.get("StudyInstanceUID", "")),
        series_instance_uid=str(source.get("SeriesInstanceUID", "")),
        transfer_syntax_uid=EXPLICIT_LITTLE,
        digest=digest,
        byte_count=1,
        spool_key="made",
        received_at=received_at,
    )


def prediction(
    *, demonstration: bool = False, weights: str = "c0" * 32, labels: int = 18, **parameters: str
) -> Prediction:
    """Made-up findings: some present, some absent, one exactly on its threshold."""
    rows = FINDINGS[:labels]
    return Prediction(
        classifier=ClassifierIdentity(
            name="cxr",
            algorithm="demo-phantoms" if demonstration else "densenet121-res224-all",
            version="torchxrayvision 1.5.7",
            manufacturer="dicom-ai-router" if demonstration else "torchxrayvision",
            weights_sha256=weights,
            parameters={"preprocessing": "1", "normalisation": "op_norm", **parameters},
            demonstration=demonstration,
        ),
        findings=tuple(
            Finding(label=row.label, score=(7 * index % 19) / 18 if index else 0.5, raw=(5 * index % 19) / 40)
            for index, row in enumerate(rows)
        ),
        not_trained=("Unheard Of",),
        notes=("Pixels outside the central square were not seen by the network.",),
    )


def tool(name: str) -> str:
    """The path of a validator; the test is skipped without it, and fails in CI."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return path


def dciodvfy_errors(path: Path) -> list[str]:
    """The lines in which dicom3tools' validator names an error. It looks at the same bytes only once."""
    data = path.read_bytes()
    if data not in _LOOKED_AT:
        _LOOKED_AT[data] = _errors(path)
    return _LOOKED_AT[data]


def _errors(path: Path) -> list[str]:
    done = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode("latin-1").splitlines()
    # A validator that says nothing at all has not looked.
    assert any("SR" in line for line in said), said
    return [line for line in said if line.startswith("Error")]


def dsrdump(path: Path) -> str:
    """The document as dcmtk reads it; asserts that it finds no error. It looks at the same bytes only once."""
    data = path.read_bytes()
    if data not in _DUMPED:
        _DUMPED[data] = _dump(path)
    return _DUMPED[data]


def _dump(path: Path) -> str:
    done = subprocess.run([tool("dsrdump"), "+Pl", str(path)], capture_output=True, timeout=60, check=False)
    said = done.stderr.decode("latin-1")
    assert done.returncode == 0, said
    assert not [line for line in said.splitlines() if line.startswith(("E:", "F:"))], said
    return done.stdout.decode("latin-1")


def validated(data: bytes, folder: Path) -> str:
    """The dcmtk dump of a document in which neither validator finds an error."""
    path = folder / "sr.dcm"
    path.write_bytes(data)
    assert dciodvfy_errors(path) == []
    return dsrdump(path)


def reference(**changed: str) -> Reference:
    """A document made before."""
    uids = {
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
        "sop_instance_uid": "2.25.1",
        "series_instance_uid": "2.25.2",
        "study_instance_uid": HEADER["StudyInstanceUID"].decode(),
    }
    return Reference(**{**uids, **changed})
