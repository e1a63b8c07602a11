"""The whole SR of a drawn image, element by element, against the text beside this file.

A difference is either a mistake or a new document: in the second case raise `WRITER_VERSION` in `router/report/codes.py`,
run this test with GOLDEN_WRITE=1 and look at the difference before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from router.report.sr import SrBuilder
from tests.report.made import HEADER, instance_of, prediction, read

GOLDEN = Path(__file__).with_name("sr_demonstration.txt")
#: They follow the installed versions, and so do the UID of the object and nothing else.
OF_VERSIONS = ("SoftwareVersions", "SOPInstanceUID", "MediaStorageSOPInstanceUID", "FileMetaInformationGroupLength")


def lines(dataset: Dataset, depth: int = 0) -> Iterator[str]:
    for element in dataset:
        start = f"{'  ' * depth}{element.keyword} {element.VR}"
        if element.VR == "SQ":
            yield f"{start} {len(element.value)}"
            for item in element.value:
                yield from lines(item, depth + 1)
        elif element.keyword in OF_VERSIONS:
            yield f"{start} (follows the installed versions)"
        else:
            value = element.value
            shown = value.hex() if isinstance(value, bytes) else str(value)
            yield f"{start} {shown}".rstrip()


def test_the_document_is_the_one_that_was_agreed_on() -> None:
    source = read(HEADER)
    result = SrBuilder().build(source, instance_of(source), prediction(demonstration=True, labels=3))
    document = dcmread(BytesIO(result.data))
    found = "\n".join([*lines(document.file_meta), *lines(document)]) + "\n"
    if os.environ.get("GOLDEN_WRITE"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")
