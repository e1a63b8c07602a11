"""A document and an image's own elements as one DICOM file, explicit VR little endian."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from router.core import provenance
from router.report.context import COPIED


def part10(document: Dataset, header: Mapping[str, bytes]) -> bytes:
    """Preamble, File Meta Information and data set (PS3.10 7.1), with the elements of `header` written as they are.

    pydicom would decode and encode them again; a name in two character sets does not survive that.
    """
    ready = {tag_for_keyword(keyword): (dictionary_VR(keyword), value) for keyword, value in header.items()}
    for keyword in COPIED:  # highdicom's placeholders and its own character set
        document.pop(keyword, None)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = document.SOPClassUID
    meta.MediaStorageSOPInstanceUID = document.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = provenance.IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = provenance.IMPLEMENTATION_VERSION_NAME
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    file.write(bytes(128) + b"DICM")
    write_file_meta_info(file, meta)
    for tag in sorted({*document.keys(), *ready}):
        if tag in ready:
            vr, value = ready[tag]
            file.write_tag(tag)
            file.write(vr.encode())
            file.write_US(len(value))
            file.write(value)
        else:
            write_data_element(file, document[tag], "ISO_IR 6")
    return bytes(file.getvalue())
