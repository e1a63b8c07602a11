"""The head that we write before a data set: readable by others, the same every time, its end always found."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from router.core.uids import IMPLEMENTATION_CLASS_UID
from router.errors import SpoolDamaged
from router.spool.part10 import data_set_offset, file_head
from tests import samples

FACTS = {
    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1",
    "sop_instance_uid": "1.2.3",
    "transfer_syntax_uid": "1.2.840.10008.1.2",
}


def test_the_head_is_a_dicom_file_that_pydicom_reads(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(file_head(**FACTS, source_ae_title="CR_ROOM1"))
    meta = pydicom.dcmread(path).file_meta
    assert meta.MediaStorageSOPClassUID == FACTS["sop_class_uid"]
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == FACTS["transfer_syntax_uid"]
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.SourceApplicationEntityTitle == "CR_ROOM1"
    assert data_set_offset(path) == path.stat().st_size


def test_the_same_facts_give_the_same_bytes() -> None:
    assert file_head(**FACTS) == file_head(**FACTS)


@pytest.mark.parametrize("path", samples.pydicom_files()[:40], ids=lambda p: p.name)
def test_the_data_set_of_other_programs_files_is_found(path: Path) -> None:
    found = path.read_bytes()[data_set_offset(path) :]
    assert found == samples.dataset_bytes(path)


def test_a_file_without_group_length_is_walked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole = file_head(**FACTS) + b"\x08\0\x16\0UI\2\x001\0"
    path.write_bytes(whole[:132] + whole[144:])
    assert path.read_bytes()[data_set_offset(path) :] == b"\x08\0\x16\0UI\2\x001\0"


@pytest.mark.parametrize("data", [b"", b"\0" * 132, b"\0" * 128 + b"DICO"])
def test_what_is_no_dicom_file_is_damage(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(SpoolDamaged):
        data_set_offset(path)
