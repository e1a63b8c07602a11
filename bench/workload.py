"""Instances to send: many of one image, each with a SOP Instance UID of its own, made by replacing bytes."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from router.classify.phantom import phantom_dicom
from tests.samples import pydicom_file

#: As long as every UID that takes its place.
_PLACE = "1.2.826.0.1.3680043.10.1338.100000000000"
_numbers = itertools.count(int.from_bytes(os.urandom(4), "big") * 1000)


@dataclass(frozen=True, slots=True)
class Size:
    """A kind of image."""

    name: str
    count: int
    """Instances of one measurement with Nagle's algorithm off: so many that a sender's start, 50 ms and more, hardly counts."""
    slow_count: int
    """With it on, when every answer of some receivers takes 40 ms and more."""


TINY = Size("tiny, 10 kB", 600, 60)
CT = Size("CT-like, 525 kB", 300, 100)
CHEST = Size("chest, 7.2 MB", 48, 40)
SIZES = (TINY, CT, CHEST)


def instances(size: Size, count: int, folder: Path) -> list[Path]:
    """Files that nobody has seen before."""
    folder.mkdir(parents=True, exist_ok=True)
    one, paths = template(size), []
    for _ in range(count):
        number = next(_numbers)
        data = one.replace(_PLACE.encode(), f"{_PLACE[:-11]}{number % 10**11:011d}".encode())
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(data)
    return paths


@cache
def template(size: Size) -> bytes:
    """One file; its SOP Instance UID is `_PLACE`."""
    ds = {TINY.name: lambda: _slice(64, 72), CT.name: lambda: _slice(512, 512), CHEST.name: _chest}[size.name]()
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = _PLACE
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    assert buffer.getvalue().count(_PLACE.encode()) == 2
    return buffer.getvalue()


def _slice(rows: int, columns: int) -> Dataset:
    """Like one of a computed tomography: some fifty attributes and noise."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.3680043.10.1338.1", f"1.2.826.0.1.3680043.10.1338.2.{rows}"
    ds.FrameOfReferenceUID = "1.2.826.0.1.3680043.10.1338.3"
    ds.SpecificCharacterSet, ds.Modality, ds.ImageType = "ISO_IR 100", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = "20260101"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = "101010"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Bench^Drawn", "BENCH", "19700101", "F"
    ds.AccessionNumber, ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "B1", "1", 1, 1
    ds.Manufacturer, ds.StudyDescription, ds.BodyPartExamined, ds.KVP = "drawn", "bench", "ABDOMEN", "120"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [0.7, 0.7], "1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.WindowCenter, ds.WindowWidth = "-1024", "1", "40", "400"
    noise = np.random.default_rng(1).normal(1000, 100, (rows, columns)).clip(0, 4095).astype("<u2")
    ds.add_new(0x7FE00010, "OW", noise.tobytes())
    return ds


def _chest() -> Dataset:
    """A real radiograph where pydicom-data is installed, else one that we draw, as large."""
    try:
        return pydicom.dcmread(pydicom_file("RG1_UNCR.dcm"))
    except StopIteration:
        return phantom_dicom(1, rows=2000, columns=1800)
