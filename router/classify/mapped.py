"""Uncompressed pixels looked at where the system has them in memory already: to read them would be to copy them first."""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

_PIXEL_DATA = 0x7FE00010
#: Of native Pixel Data; implicit VR has none. Whatever else a peer writes there pydicom is to read, and to refuse.
_VRS = (None, "OB", "OW")


def map_pixels(ds: Dataset) -> None:
    """Puts the file's own pages in the place of native Pixel Data whose reading was put off (`defer_size`).

    Whatever else there is stays as it is, and so does what cannot be mapped: reading it will say what is wrong. Of a file
    that is cut off there is as much as there is.
    The file must not become shorter while `ds` is in use. What the spool has is never written again, and a deleted file
    stays until nobody looks at it.
    """
    element = ds.get_item(_PIXEL_DATA, keep_deferred=True)
    name = getattr(ds, "filename", None)
    put_off = isinstance(element, RawDataElement) and element.value is None and element.length
    if not put_off or element.VR not in _VRS or not isinstance(name, str):
        return
    with contextlib.suppress(OSError, ValueError):
        with Path(name).open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        value = memoryview(pages)[element.value_tell : element.value_tell + element.length]
        ds[_PIXEL_DATA] = DataElement(_PIXEL_DATA, element.VR or "OW", value, already_converted=True)
