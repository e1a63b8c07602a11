"""Sample DICOM files: the shared set beside the checkout when it is there, pydicom's own test files always."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from pathlib import Path

import pydicom
import pydicom.data
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from tests.peers import ROOT

#: Real radiographs beside the checkout; not part of the project, so every test must also pass without it.
SHARED = ROOT.parent / "shared" / "data"

#: Whole files that dcmtk nevertheless reads wrongly (odd lengths of values) or corrects (wrong group lengths, OW for OB), so
#: that what it sends, and what Orthanc keeps, is not what they hold.
_NOT_FOR_DCMTK = ("explicit_VR-UN", "rtdose_rle", "693_")
#: Of several files with one SOP Instance UID these, because their transfer syntaxes are rare among the others.
_RATHER = ("MR_small_bigendian.dcm", "SC_rgb_rle.dcm")


def shared_data() -> Path | None:
    """The folder of shared data, or None."""
    return SHARED if SHARED.is_dir() else None


@cache
def shared_dicom() -> tuple[Path, ...]:
    """Every DICOM file of the shared set, sorted; empty where there is none."""
    return tuple(sorted((SHARED / "dicom").rglob("*.dcm")))


@cache
def chest_images() -> tuple[Path, ...]:
    """Chest radiographs of the shared set, re-encoded ones included; empty where there is none."""
    return tuple(p for p in shared_dicom() if p.parent.name.startswith("chest"))


@cache
def _pydicom_paths() -> tuple[Path, ...]:
    """Not pydicom.data.get_testdata_files: that asks the network for what is missing."""
    assert pydicom.data.__file__ is not None
    folders = [Path(pydicom.data.__file__).parent / "test_files"]
    extra = importlib.util.find_spec("data_store")  # of the package pydicom-data
    if extra is not None and extra.submodule_search_locations:
        folders += [Path(place) / "data" for place in extra.submodule_search_locations]
    return tuple(sorted(path for folder in folders for path in folder.rglob("*.dcm")))


@cache
def pydicom_files() -> tuple[Path, ...]:
    """Files that pydicom and pydicom-data ship: what any archive takes, with pairwise different UIDs."""
    return _distinct(_pydicom_paths())


def pydicom_file(name: str) -> Path:
    """One of pydicom's own test files, e.g. "CT_small.dcm", "MR_small_RLE.dcm"."""
    return next(path for path in _pydicom_paths() if path.name == name)


@cache
def storable() -> tuple[Path, ...]:
    """Every sample that any archive takes, pairwise different SOP Instance UIDs: the shared set, then pydicom's."""
    return _distinct((*shared_dicom(), *pydicom_files()))


def _distinct(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """One file for each SOP Instance UID, in the order of `paths`."""
    chosen: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: path.name not in _RATHER):
        if uid := _storable(path):
            chosen.setdefault(uid, path)
    return tuple(path for path in paths if path in chosen.values())


def _storable(path: Path) -> str | None:
    """The SOP Instance UID of a DICOM file that any archive takes as it is, else None.

    Orthanc, for one, wants a PatientID.
    """
    needed = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some samples are odd on purpose
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*needed])
            meta = ds.file_meta
            uids = [str(ds[name].value) for name in needed[:4]] + [str(meta.TransferSyntaxUID)]
            same = uids[:2] == [str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)]
            whole = bool(ds.get("PatientID")) and all(UID(uid).is_valid for uid in uids)
    except (InvalidDicomError, AttributeError, KeyError, OSError, ValueError, EOFError):
        return None
    return uids[1] if same and whole and not path.name.startswith(_NOT_FOR_DCMTK) else None


def dataset_bytes(file: bytes | Path) -> bytes:
    """The encoded data set of a DICOM file: what stands after preamble and File Meta Information (PS3.10 7.1)."""
    data = file.read_bytes() if isinstance(file, Path) else file
    assert data[128:132] == b"DICM", "not a DICOM file"
    assert data[132:136] == b"\x02\x00\x00\x00", "no group length in the File Meta Information"
    return data[144 + int.from_bytes(data[140:144], "little") :]
