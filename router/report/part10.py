"""A data set as a DICOM file, explicit VR little endian."""

from __future__ import annotations

import struct

from pydicom.uid import ExplicitVRLittleEndian

from router.core import provenance
from router.report.elements import element, text


def part10(
    data_set: bytes,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str = str(ExplicitVRLittleEndian),
) -> bytes:
    """Preamble, File Meta Information and the encoded data set (PS3.10 7.1).

    `transfer_syntax_uid` may name a compression of the pixels; everything else is explicit VR little endian (PS3.5 A.4).
    """
    meta = b"".join(
        (
            element("FileMetaInformationVersion", b"\0\1"),
            text("MediaStorageSOPClassUID", sop_class_uid),
            text("MediaStorageSOPInstanceUID", sop_instance_uid),
            text("TransferSyntaxUID", transfer_syntax_uid),
            text("ImplementationClassUID", provenance.IMPLEMENTATION_CLASS_UID),
            text("ImplementationVersionName", provenance.IMPLEMENTATION_VERSION_NAME),
        )
    )
    group_length = element("FileMetaInformationGroupLength", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + group_length + meta + data_set
