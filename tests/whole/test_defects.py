"""Images with the worst headers through a real node: each original arrives as it was sent, with its report or with a reason."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, _config

from router.classify.phantom import phantom_dicom
from router.ledger.store import SqlLedger
from tests.peers import StoreScp, run
from tests.report.defects import DEFECTS
from tests.report.made import EXPLICIT_LITTLE, dciodvfy_errors, meta
from tests.report.test_filing import of_its_own, sop_class
from tests.report.worse import WORSE
from tests.samples import dataset_bytes
from tests.whole.router_process import RouterProcess

pytestmark = pytest.mark.peer("dcmtk", "dicom3tools")

WITH_REPORT = (
    "PatientID with backslash",
    "Japanese as most modalities write it",
    "ISO_IR 999",
    "private SOP class",
    "UID with letters",
    "every Type 2 element empty",
    "huge private block",
    "PatientName with a NUL inside",
    "StudyDate as binary",
    "escape that is cut off",
)
WITHOUT_REPORT = (
    "SOPInstanceUID absent",
    "StudyInstanceUID absent",
    "StudyInstanceUID with two values",
    "UID of 300 characters",
    "two patient identifiers that differ",
)


def pixels() -> dict[str, bytes | tuple[str, bytes]]:
    """What makes a header an image that the classifier takes."""
    phantom = phantom_dicom(7, rows=128, columns=128)
    numbers = ("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    return {
        "BodyPartExamined": b"CHEST ",
        "ViewPosition": b"PA",
        "PhotometricInterpretation": str(phantom.PhotometricInterpretation).encode(),
        **{keyword: struct.pack("<H", phantom[keyword].value) for keyword in numbers},
        "PixelData": ("OW", phantom.PixelData),
    }


def send(port: int, paths: dict[str, Path], classes: set[str]) -> dict[str, int]:
    """Data sets as they lie in the files, whatever is in them; name -> status."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        ae = AE()
        for uid in sorted(classes):
            ae.add_requested_context(uid, EXPLICIT_LITTLE)
        association = ae.associate("127.0.0.1", port, ae_title="ROUTER")
        assert association.is_established
        statuses = {name: association.send_c_store(path).Status for name, path in paths.items()}
        association.release()
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = False
    return statuses


def test_the_worst_headers_hold_no_original_up(plain_node: RouterProcess, storescp: StoreScp, tmp_path: Path) -> None:
    wanted = {*WITH_REPORT, *WITHOUT_REPORT}
    defects = {defect.name: defect for defect in (*DEFECTS, *WORSE) if defect.name in wanted}
    assert len(defects) == len(wanted)
    image = pixels()
    files, sent, uids = {}, {}, {}
    for number, (name, defect) in enumerate(defects.items(), start=1):
        header = {**of_its_own(number), **image}
        uids[name] = of_its_own(number)["SOPInstanceUID"].decode()
        sent[name] = defect.data_set(header)
        files[name] = tmp_path / f"{number}.dcm"
        files[name].write_bytes(meta(sop_class(defect), uids[name]) + sent[name])
    statuses = send(plain_node.port, files, {sop_class(defect) for defect in defects.values()})
    assert {name for name, status in statuses.items() if status} == set()
    plain_node.settle()

    arrived = [path.read_bytes() for path in storescp.files()]
    data_sets = {dataset_bytes(data) for data in arrived}
    assert [name for name in sent if sent[name] not in data_sets] == [], "every original, as it was sent"
    by_name = dict(zip(uids, plain_node.statuses(list(uids.values())), strict=True))
    with_report = {name for name, status in by_name.items() if status and status.results}
    assert with_report == set(WITH_REPORT)
    ledger = SqlLedger(plain_node.ledger_url)
    said = {name: [line.detail for line in ledger.queries.trace(uids[name])] for name in WITHOUT_REPORT}
    ledger.close()
    assert "StudyInstanceUID is missing" in said["StudyInstanceUID absent"]
    assert all(any(detail.startswith(defects[name].not_reportable) for detail in said[name]) for name in said), said
    reports = [data for data in arrived if dcmread(BytesIO(data), specific_tags=["Modality"]).Modality == "SR"]
    assert len(reports) == len(WITH_REPORT)
    for data in reports:
        path = tmp_path / "sr.dcm"
        path.write_bytes(data)
        inherited = (
            "<PatientID>",
            "<StudyInstanceUID>",
            "PatientName",
            "(0x0010,0x0020)",
            "(0x0020,0x000d)",
            "(0x0010,0x0010)",
        )
        errors = [line for line in dciodvfy_errors(path) if not any(name in line for name in inherited)]
        assert [line for line in errors if "invalid data values for Value Representations" not in line] == []
        assert run("dsrdump", path).returncode == 0
