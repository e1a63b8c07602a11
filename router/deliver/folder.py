"""A folder as destination: one DICOM file (PS3.10) for each instance, written durably, never overwritten by other bytes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from router.core.admission import valid_uid
from router.core.digest import parsed
from router.core.ports import Delivered, Delivery
from router.deliver.intact import intact
from router.errors import PeerRefused, PeerUnreachable, SpoolDamaged, TransientError
from router.settings import FilePath, Table
from router.spool.durable import Disk, DurableFile

_CHUNK_BYTE_COUNT = 2**20
_CANNOT_UNDERSTAND = 0xC000
#: Where instances lie whose Study Instance UID is missing or no UID.
UNFILED = "study-uid-not-valid"


class FolderDestination:
    """Plug point `router.destinations`, type "folder": PATH/<Study Instance UID>/<SOP Instance UID>.dcm."""

    class Settings(Table):
        """[destinations.NAME] with type = "folder"."""

        path: FilePath

    def __init__(self, *, name: str, settings: Settings, node_ae_title: str = "", disk: Disk | None = None) -> None:
        self.name = name
        self._root = settings.path
        self._disk = disk or Disk()

    def send(self, deliveries: Sequence[Delivery], settled: Callable[[int, Delivered | Exception], None]) -> None:
        """Writes in order. A folder that cannot be written is like a peer that is away. See core.ports.Destination."""
        for index, delivery in enumerate(deliveries):
            try:
                outcome: Delivered | Exception = self._write(delivery)
            except (SpoolDamaged, PeerRefused, TransientError) as error:
                outcome = error
            except OSError as error:
                for rest in range(index, len(deliveries)):
                    settled(rest, self._unwritable(error))
                return
            settled(index, outcome)

    def echo(self) -> None:
        """Writes and removes a file. Raises PeerUnreachable with the reason."""
        probe = self._root / f".probe-{secrets.token_hex(8)}"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Nothing is held open."""

    def _write(self, delivery: Delivery) -> Delivered:
        instance = delivery.instance
        if not valid_uid(instance.sop_instance_uid):
            raise PeerRefused("its SOP Instance UID cannot be a file name", status=_CANNOT_UNDERSTAND)
        study = instance.study_instance_uid
        with intact(delivery) as file:
            folder = self._root / (study if valid_uid(study) else UNFILED)
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                self._disk.sync_folder(self._root)
            place = folder / f"{instance.sop_instance_uid}.dcm"
            note = ""
            if place.exists() and not _holds(place, delivery):
                place = folder / f"{instance.sop_instance_uid}.{parsed(instance.digest).digits[:16]}.dcm"
                note = f"the folder has another instance with this UID: written as {place.name}"
            if not _holds(place, delivery):
                file.seek(0)  # with preamble and File Meta Information
                copy = DurableFile(temporary=folder / f".{secrets.token_hex(8)}.part", final=place, disk=self._disk)
                while data := file.read(_CHUNK_BYTE_COUNT):
                    copy.write(data)
                copy.commit()
            return Delivered(note=note)

    def _unwritable(self, error: OSError) -> PeerUnreachable:
        return PeerUnreachable(f"the folder {self._root} cannot be written: {error.strerror or type(error).__name__}")


def _holds(place: Path, delivery: Delivery) -> bool:
    """True when the file is there with exactly the data set of the delivery."""
    hasher = parsed(delivery.instance.digest).hasher()
    try:
        with place.open("rb") as file:
            offset = file.seek(0, 2) - delivery.instance.byte_count
            if offset < 0:
                return False
            file.seek(offset)
            hasher.update_to_end(file)
            return hasher.text() == delivery.instance.digest
    except FileNotFoundError:
        return False
