"""The transcode child: one instance made uncompressed, explicit VR little endian. A process for each, which may die.

Composition root of its process, as `child` is of the classify child. Codecs that crash, hang or eat memory do so here and
not where images are received. It opens two files and nothing else.

    python -m router.transcode IN OUT TIME_LIMIT_S MEMORY_BYTE_COUNT

IN is a DICOM file; OUT must not exist. The answer is one line of JSON on standard output: {"digest", "byte_count"} of the data
set in OUT, or {"problem": why it cannot be decoded}, or {"no_room": true} when the disk is full.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from router.confinement import bound_memory, for_one_answer
from router.errors import UnreadablePixels
from router.spool.part10 import data_set_offset, file_head

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
#: VR -> bytes of the words that it consists of (PS3.5 6.2 and 7.3); pydicom turns every other VR by itself.
_WORDS = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}


def main(arguments: list[str]) -> int:
    """Exit 0 when it has answered, whatever the answer."""
    source, target, time_limit_s, memory_byte_count = arguments
    answer = for_one_answer(float(time_limit_s))
    import router.classify.native  # noqa: F401 - before memory is bounded: libraries are no part of the image

    bound_memory(int(memory_byte_count))
    answer.write(json.dumps(_attempt(Path(source), Path(target))).encode() + b"\n")
    answer.flush()
    return 0


def _attempt(source: Path, target: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote element values
            # pydicom reads what is cut off as far as it goes, and only warns.
            warnings.filterwarnings("error", message=r"(?is).*end of file", category=UserWarning)
            return transcode(source, target)
    except UnreadablePixels as error:
        return {"problem": str(error)}
    except MemoryError:
        return {"problem": "decoding it needs more memory than is allowed"}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"no_room": True}
        return {"problem": f"its file cannot be read or written ({type(error).__name__})"}
    except Exception as error:  # noqa: BLE001 - whatever a parser says of hostile bytes
        return {"problem": f"its data set cannot be read ({type(error).__name__})"}


def transcode(source: Path, target: Path) -> dict[str, Any]:
    """Writes `target`, which must not exist; {"digest", "byte_count"} of its data set.

    Raises UnreadablePixels, MemoryError, OSError, and what pydicom raises for a data set that it cannot read.
    """
    import pydicom
    from pydicom.filebase import DicomIO
    from pydicom.filewriter import write_dataset

    from router.classify.native import make_native

    ds = pydicom.dcmread(source)
    meta = ds.file_meta
    syntax = str(meta.TransferSyntaxUID)
    head = file_head(
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
    )
    with tempfile.TemporaryFile(dir=target.parent) as passing:
        if syntax == _EXPLICIT_VR_BIG_ENDIAN:
            _turn_words(ds)
        elif syntax != _DEFLATED:
            make_native(ds, syntax, passing)
        with os.fdopen(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b") as file:
            file.write(head)
            out = DicomIO(file)
            out.is_little_endian, out.is_implicit_VR = True, False
            write_dataset(out, ds)
    offset = data_set_offset(target)
    with target.open("rb") as written:
        written.seek(offset)
        digest = hashlib.file_digest(written, "sha256").hexdigest()  # see core.digest
        return {"digest": digest, "byte_count": written.tell() - offset}


def _turn_words(ds: Any) -> None:
    """Words of big endian become little endian: pydicom leaves the bytes of these VRs as they are."""
    for element in ds:
        if element.VR == "SQ":
            for item in element.value or ():
                _turn_words(item)
        elif (size := _WORDS.get(element.VR)) and element.value:
            turned = bytearray(element.value)
            whole = len(turned) - len(turned) % size
            for place in range(size):
                turned[place:whole:size] = element.value[size - 1 - place : whole : size]
            element.value = bytes(turned)


if __name__ == "__main__":
    # Without running other libraries' exit handlers: nothing here needs them, and they can hang.
    os._exit(main(sys.argv[1:]))
