"""SOP instances in files, folders and zip archives, without unpacking anything to disk: what `router send` sends."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble

from router.core.admission import valid_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One SOP instance and how to get at its bytes."""

    name: str
    """For people: the path, or «archive.zip!member»."""
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    """Where the data set begins in the file, in bytes."""
    open: Callable[[], IO[bytes]]
    """A new stream from the file's first byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotDicom:
    """A file that holds no SOP instance that could be sent, and why, in plain English."""

    name: str
    reason: str


def find(paths: Iterable[Path]) -> Iterator[Source | NotDicom]:
    """Everything in `paths`, in the order of names: files as they are, folders and zip archives entered, DICOMDIRs passed by."""
    for path in paths:
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
                yield from _file(file)
        elif path.exists():
            yield from _file(path)
        else:
            yield NotDicom(name=str(path), reason="no such file or folder")


def _file(path: Path) -> Iterator[Source | NotDicom]:
    if zipfile.is_zipfile(path):
        yield from _archive(path)
    else:
        yield look(str(path), lambda: path.open("rb"))


def _archive(path: Path) -> Iterator[Source | NotDicom]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        yield NotDicom(name=str(path), reason=f"broken archive: {error}")
        return
    for info in members:

        def opener(name: str = info.filename) -> IO[bytes]:
            # A new handle each time: the stream may be read long after the scan, beside another one.
            with zipfile.ZipFile(path) as archive:
                return archive.open(name)

        name = f"{path}!{info.filename}"
        if info.flag_bits & 0x1:
            yield NotDicom(name=name, reason="encrypted: unpack it with its password first")
        else:
            yield look(name, opener)


def look(name: str, opener: Callable[[], IO[bytes]]) -> Source | NotDicom:
    """What a file holds: reads preamble and File Meta Information (PS3.10 section 7.1), nothing of the data set."""
    try:
        with opener() as stream:
            read_preamble(stream, force=False)
            meta = _read_file_meta_info(stream)
            offset = stream.tell()
            sop_class, instance, syntax = (
                str(meta.get(keyword, ""))
                for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
            )
    except InvalidDicomError:
        return NotDicom(name=name, reason="not a DICOM file (no DICM prefix)")
    except Exception as error:  # noqa: BLE001 - a broken file is a line in the summary, whatever breaks in it
        return NotDicom(name=name, reason=f"cannot be read ({type(error).__name__})")
    if sop_class == "1.2.840.10008.1.3.10":
        return NotDicom(name=name, reason="a DICOMDIR: its files are sent, it is not")
    if not (valid_uid(sop_class) and valid_uid(instance) and valid_uid(syntax)):
        return NotDicom(name=name, reason="File Meta Information lacks a UID that is needed to send it")
    return Source(
        name=name,
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        transfer_syntax_uid=syntax,
        data_set_offset=offset,
        open=opener,
    )
