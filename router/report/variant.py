"""The same SR document in another SOP class, for a destination that does not take the first one.

The content of our documents is allowed in all three classes, so that only SOP class and SOP instance differ: the bytes in
between are carried over as they are. Each class has a UID of its own, because one UID never names two documents.
Sources: PS3.3 A.35.2 (Enhanced SR), A.35.3 (Comprehensive SR), A.35.13 (Comprehensive 3D SR).
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage, ExplicitVRLittleEndian

from router.core.instance import InstanceKind
from router.core.ports import ResultObject
from router.core.uids import variant_sop_instance_uid
from router.report.elements import text
from router.report.part10 import part10
from router.report.readback import Level, data_set_start, read_file, tag_of, top_elements

#: SOP class -> the one to try when a destination refuses it. Old archives know Enhanced SR sooner than Comprehensive SR.
INSTEAD = {
    str(Comprehensive3DSRStorage): str(EnhancedSRStorage),
    str(EnhancedSRStorage): str(ComprehensiveSRStorage),
}
_SOP_CLASS, _SOP_INSTANCE = tag_of("SOPClassUID"), tag_of("SOPInstanceUID")
_CONTENT, _VALUE_TYPE = tag_of("ContentSequence"), tag_of("ValueType")
#: Allowed in all the classes; other builders' documents may hold more, and items by reference have none.
_VALUE_TYPES = frozenset(b"CONTAINER TEXT CODE NUM UIDREF IMAGE COMPOSITE".split())
_STUDY, _SERIES = tag_of("StudyInstanceUID"), tag_of("SeriesInstanceUID")


def variant(data: bytes) -> ResultObject | None:
    """The next document for a DICOM file that a result builder or this function made; None when no other class can hold it.

    Raises ValueError for bytes that are no such file. The same bytes give the same bytes.
    """
    meta, data_set = read_file(data)
    uids = {tag: _uid(data_set.get(tag)) for tag in (_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES)}
    if _uid(meta.get(tag_of("TransferSyntaxUID"))) != ExplicitVRLittleEndian or not all(uids.values()):
        raise ValueError("not a document of ours")
    sop_class_uid = INSTEAD.get(uids[_SOP_CLASS])
    if sop_class_uid is None or not _VALUE_TYPES.issuperset(_value_types(data_set)):
        return None
    sop_instance_uid = variant_sop_instance_uid(of=uids[_SOP_INSTANCE], sop_class_uid=sop_class_uid)
    changed = {
        _SOP_CLASS: text("SOPClassUID", sop_class_uid),
        _SOP_INSTANCE: text("SOPInstanceUID", sop_instance_uid),
    }
    elements = (
        changed.get(element.tag, data[element.start : element.end])
        for element in top_elements(data, data_set_start(data))
    )
    return ResultObject(
        kind=InstanceKind.SR,
        data=part10(b"".join(elements), sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid),
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        study_instance_uid=uids[_STUDY],
        series_instance_uid=uids[_SERIES],
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
    )


def _value_types(item: Level) -> Iterator[bytes]:
    below = item.get(_CONTENT)
    for child in below if isinstance(below, list) else ():
        value_type = child.get(_VALUE_TYPE)
        yield value_type.rstrip() if isinstance(value_type, bytes) else b""
        yield from _value_types(child)


def _uid(value: object) -> str:
    return value.decode("ascii").rstrip("\0 ") if isinstance(value, bytes) else ""
