"""Drawn chest phantoms as DICOM images, for `router demo` and for tests: valid CR and DX instances without a patient."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from router import __version__
from router.classify.drawing import LABELS, Phantom, draw
from router.core.uids import derived_uid

__all__ = ["LABELS", "Phantom", "draw", "phantom_dicom"]

#: A phantom is this wide, whatever its number of pixels.
_WIDTH_MM = 400.0


def phantom_dicom(
    seed: int,
    *,
    rows: int = 1024,
    columns: int = 1024,
    bits_stored: int = 12,
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2",
    modality: Literal["CR", "DX"] = "CR",
    findings: Sequence[bool] | None = None,
    at: datetime = datetime(2024, 1, 1, 12, 0, 0),
) -> FileDataset:
    """One drawn frontal chest radiograph: explicit little endian, study, series and SOP Instance UID fixed by the arguments.

    The phantom fills the central square of rows x columns; the rest is black, as outside a collimator. `findings` are in
    the order of LABELS; None leaves them to the seed. `at` is study, series and content date and time.
    Sources: PS3.3 A.2 (Computed Radiography Image IOD), A.26 (Digital X-Ray Image IOD).
    """
    side = min(rows, columns)
    phantom = draw(seed, side, findings)
    white = 2**bits_stored - 1
    stored = np.round(phantom.pixels * white).astype(np.uint16 if bits_stored > 8 else np.uint8)
    whole = np.zeros((rows, columns), stored.dtype)
    top, left = rows // 2 - side // 2, columns // 2 - side // 2
    whole[top : top + side, left : left + side] = stored
    if photometric == "MONOCHROME1":
        whole = (white - whole).astype(stored.dtype)

    shown = "".join("1" if finding else "0" for finding in phantom.findings)
    kind = (str(seed), str(rows), str(columns), str(bits_stored), photometric, modality, shown, at.isoformat())
    ds = Dataset()
    _study(ds, seed, at, kind)
    _image(ds, modality, photometric, bits_stored)
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = stored.dtype.itemsize * 8, bits_stored, bits_stored - 1
    ds.ImagerPixelSpacing = [round(_WIDTH_MM / side, 4)] * 2
    ds.PixelData = whole.tobytes() + b"\0" * (whole.nbytes % 2)
    ds["PixelData"].VR = "OW"

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = derived_uid("phantom", "implementation")
    return FileDataset(None, ds, preamble=b"\0" * 128, file_meta=meta, is_implicit_VR=False, is_little_endian=True)


def _study(ds: Dataset, seed: int, at: datetime, kind: Sequence[str]) -> None:
    """Patient, study, series and equipment."""
    ds.PatientName, ds.PatientID = "DEMO^PHANTOM", f"DEMO-{seed}"
    ds.PatientBirthDate, ds.PatientSex = "", ""
    ds.StudyInstanceUID = derived_uid("phantom", "study", str(seed), at.isoformat())
    ds.SeriesInstanceUID = derived_uid("phantom", "series", *kind)
    ds.SOPInstanceUID = derived_uid("phantom", "sop", *kind)
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = at.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = at.strftime("%H%M%S")
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = str(seed % 10**16), f"DEMO{seed % 10**12}", ""
    ds.StudyDescription, ds.SeriesDescription = "Drawn chest phantom", "Phantom, PA"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.Manufacturer, ds.ManufacturerModelName = "Drawn chest phantoms", "No X-rays were used"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", __version__


def _image(ds: Dataset, modality: str, photometric: str, bits_stored: int) -> None:
    """What the image shows and how its values are meant."""
    ds.Modality = modality
    ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "CHEST", "PA", ["L", "F"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, photometric, 0
    ds.WindowCenter, ds.WindowWidth = 2 ** (bits_stored - 1), 2**bits_stored
    ds.LossyImageCompression, ds.BurnedInAnnotation = "00", "NO"
    if modality == "CR":
        ds.SOPClassUID, ds.ImageType = ComputedRadiographyImageStorage, ["ORIGINAL", "PRIMARY"]
        return
    ds.SOPClassUID, ds.ImageType = DigitalXRayImageStorageForPresentation, ["ORIGINAL", "PRIMARY", ""]
    ds.PresentationIntentType, ds.ImageLaterality, ds.DetectorType = "FOR PRESENTATION", "U", "DIRECT"
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1 if photometric == "MONOCHROME2" else 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "IDENTITY" if photometric == "MONOCHROME2" else "INVERSE"
    ds.AnatomicRegionSequence = [_code("816094009", "SCT", "Chest")]
    ds.ViewCodeSequence = [_code("272479007", "SCT", "postero-anterior")]
    ds.AcquisitionContextSequence, ds.PositionerType = [], ""


def _code(code: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, meaning
    return item
