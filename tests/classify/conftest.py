"""What several tests of the classifiers need: data sets made from arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from tests.classify.weights_server import Server


@pytest.fixture
def made():
    """A chest radiograph's data set from stored values; keywords set or, with None, remove attributes."""

    def make(values: np.ndarray, *, bits_stored: int | None = None, **attributes: object) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.Modality = ComputedRadiographyImageStorage, "CR"
        ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
        ds.Rows, ds.Columns = values.shape[:2]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = values.dtype.itemsize * 8
        ds.BitsStored = bits_stored or ds.BitsAllocated
        ds.HighBit = ds.BitsStored - 1
        ds.PixelRepresentation = 1 if values.dtype.kind == "i" else 0
        ds.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes() + b"\0" * (values.nbytes % 2)
        ds["PixelData"].VR = "OW"
        for keyword, value in attributes.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)
        return ds

    return make


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of weights files on a port of its own."""
    with Server() as running:
        yield running
