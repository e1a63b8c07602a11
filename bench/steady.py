"""Small images at a steady rate, as of a hospital at work: studies of ten, an association each.

    python -m bench.steady PORT AE_TITLE RATE

Sends until it is ended, and prints the number of instances answered with Success so far, a line for each study.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable

import pydicom

from bench.workload import TINY, template
from router.deliver.association import Address
from router.deliver.send import send
from router.deliver.sources import Source
from tests.peers import HOST

IMAGES = 10
_PREFIX = "1.2.826.0.1.3680043.10.1338.8."


def _studies() -> Callable[[], list[Source]]:
    """Called for each study: images that nobody has seen before."""
    ds = pydicom.dcmread(io.BytesIO(template(TINY)))
    number = int.from_bytes(os.urandom(4), "big") * 10**6

    def study() -> list[Source]:
        nonlocal number
        ds.StudyInstanceUID = f"{_PREFIX}1.{number}"
        ds.SeriesInstanceUID = f"{_PREFIX}2.{number}"
        ds.PatientID, ds.AccessionNumber = f"B{number % 10**12}", f"{number % 10**12}"
        sources = []
        for image in range(IMAGES):
            number += 1
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{_PREFIX}3.{number}"
            ds.InstanceNumber = image + 1
            buffer = io.BytesIO()
            ds.save_as(buffer, enforce_file_format=True)
            sources.append(_source(buffer.getvalue(), ds))
        return sources

    return study


def _source(data: bytes, ds: pydicom.Dataset) -> Source:
    with io.BytesIO(data) as stream:
        pydicom.filereader.read_preamble(stream, force=False)
        pydicom.filereader._read_file_meta_info(stream)
        offset = stream.tell()
    return Source(
        name="drawn",
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        data_set_offset=offset,
        open=lambda: io.BytesIO(data),
    )


def main(port: int, ae_title: str, rate: float) -> None:
    """Never faster than `rate`; what it is late it makes up for, as modalities do."""
    address = Address(ae_title=ae_title, host=HOST, port=port, calling_ae_title="STEADY")
    study, sent, begun = _studies(), 0, time.monotonic()
    while True:
        time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        for one in send(address, study()):
            if one.status != "sent":
                sys.exit(one.note)
            sent += 1
        print(sent, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
