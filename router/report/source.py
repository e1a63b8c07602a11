"""The received data set as results are made of it: pixels stay on disk, and what stands there twice is remembered."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_partial

from router.errors import NotReportable
from router.report.context import IDENTITY

#: Larger values are read when they are needed: a gate that says no costs no decoding and no 100 MB of memory.
_DEFER_BYTE_COUNT = 2**20
#: Columns, with which a document's header is complete; Series Instance UID, without which there is none.
_HEADS = (0x00280011, 0x0020000E)


def read_source(path: Path) -> Any:
    """The data set in a DICOM file as pydicom has it; for `refuse_ambiguous` it knows what pydicom forgets.

    Raises what pydicom raises for bytes that are none.
    """
    tags: list[int] = []

    def note(tag: Any, _vr: object, _length: object) -> bool:
        tags.append(int(tag))
        return False

    with path.open("rb") as file:
        dataset = read_partial(file, stop_when=note, defer_size=_DEFER_BYTE_COUNT, force=True)
    dataset.repeated = frozenset(keyword for keyword in IDENTITY if tags.count(tag_for_keyword(keyword) or 0) > 1)
    return dataset


def refuse_ambiguous(source: Any) -> None:
    """Raises NotReportable when it cannot be said whose image this is: readers differ in which of two values they take."""
    for keyword in sorted(getattr(source, "repeated", ())):
        raise NotReportable(f"{keyword} stands in the data set more than once: archives differ in which one they take")


def read_head(path: Path) -> Any:
    """As much of a broken data set as a document about it needs, or None: what lies behind may be what cannot be read."""
    for last in _HEADS:
        with contextlib.suppress(Exception), path.open("rb") as file:
            return read_partial(file, stop_when=lambda tag, _vr, _length, last=last: int(tag) > last, force=True)
    return None
