"""The exam of core.ports.Destination: success, transient, permanent, partial batch, peer dies mid-batch, idempotent resend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from router.core.ports import Delivered, Delivery, Destination
from router.deliver.folder import FolderDestination
from router.errors import PeerUnreachable, PermanentError, SpoolDamaged, TransientError
from router.spool.durable import Disk
from tests.deliver.made import ScriptedScp, dicom_destination, drawn, scripted_scp, send
from tests.samples import dataset_bytes


class Rig(Protocol):
    """A destination and the far end of it."""

    destination: Destination

    def received(self) -> dict[str, bytes]:
        """SOP Instance UID -> data set."""
        ...

    def dies_at(self, uid: str) -> None:
        """The far end goes away when this instance comes."""
        ...

    def recovers(self) -> None: ...


class DicomRig:
    def __init__(self, scp: ScriptedScp) -> None:
        self.scp = scp
        self.destination = dicom_destination(scp.port)

    def received(self) -> dict[str, bytes]:
        return self.scp.received

    def dies_at(self, uid: str) -> None:
        self.scp.abort_at.add(uid)

    def recovers(self) -> None:
        self.scp.abort_at.clear()


class FolderRig:
    class _Disk(Disk):
        dies_at: str | None = None

        def rename(self, source: Path, target: Path) -> None:
            if self.dies_at and target.name.startswith(self.dies_at):
                raise OSError(28, "No space left on device")
            super().rename(source, target)

    def __init__(self, folder: Path) -> None:
        self.folder, self.disk = folder, self._Disk()
        settings = FolderDestination.Settings(path=folder)
        self.destination = FolderDestination(name="folder", settings=settings, disk=self.disk)

    def received(self) -> dict[str, bytes]:
        return {path.stem: dataset_bytes(path) for path in self.folder.rglob("*.dcm")}

    def dies_at(self, uid: str) -> None:
        self.disk.dies_at = uid

    def recovers(self) -> None:
        self.disk.dies_at = None


@pytest.fixture(params=["dicom", "folder"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "folder":
        yield FolderRig(tmp_path / "out")
        return
    with scripted_scp() as scp:
        rig = DicomRig(scp)
        yield rig
        rig.destination.close()


@pytest.fixture
def batch(tmp_path: Path) -> list[Delivery]:
    return [drawn(tmp_path / "spool", f"1.2.3.{number}") for number in range(1, 6)]


def test_what_is_delivered_arrives_byte_for_byte(rig: Rig, batch: list[Delivery]) -> None:
    assert send(rig.destination, batch) == [Delivered()] * 5
    assert rig.received() == {d.instance.sop_instance_uid: dataset_bytes(d.path) for d in batch}


def test_the_same_again_is_harmless(rig: Rig, batch: list[Delivery]) -> None:
    send(rig.destination, batch)
    before = rig.received()
    assert send(rig.destination, batch) == [Delivered()] * 5
    assert rig.received() == before


def test_damaged_bytes_do_not_leave_and_hold_nothing_up(rig: Rig, batch: list[Delivery]) -> None:
    data = bytearray(batch[2].path.read_bytes())
    data[-1] ^= 1
    batch[2].path.write_bytes(data)
    outcomes = send(rig.destination, batch)
    assert isinstance(outcomes[2], SpoolDamaged)
    assert isinstance(outcomes[2], PermanentError)
    assert [o for i, o in enumerate(outcomes) if i != 2] == [Delivered()] * 4
    assert "1.2.3.3" not in rig.received()


def test_a_file_that_is_gone_holds_nothing_up(rig: Rig, batch: list[Delivery]) -> None:
    batch[0].path.unlink()
    outcomes = send(rig.destination, batch)
    assert isinstance(outcomes[0], SpoolDamaged)
    assert outcomes[1:] == [Delivered()] * 4


def test_a_peer_that_dies_in_the_middle_has_what_it_acknowledged_and_the_rest_is_kept(
    rig: Rig, batch: list[Delivery]
) -> None:
    rig.dies_at("1.2.3.3")
    outcomes = send(rig.destination, batch)
    assert outcomes[:2] == [Delivered()] * 2
    assert all(isinstance(outcome, PeerUnreachable | TransientError) for outcome in outcomes[2:])
    assert all(isinstance(outcome, PeerUnreachable) for outcome in outcomes[3:])
    assert sorted(rig.received()) == ["1.2.3.1", "1.2.3.2"]
    rig.recovers()
    assert send(rig.destination, batch[2:]) == [Delivered()] * 3
    assert len(rig.received()) == 5


def test_echo_says_that_a_destination_is_well(rig: Rig) -> None:
    rig.destination.echo()


def test_a_destination_that_is_not_there_is_a_transient_error_for_each(tmp_path: Path, batch: list[Delivery]) -> None:
    from tests.peers import free_port

    (tmp_path / "file").write_text("in the way")
    folder = FolderDestination(name="f", settings=FolderDestination.Settings(path=tmp_path / "file" / "out"))
    for destination in (dicom_destination(free_port()), folder):
        outcomes = send(destination, batch)
        assert all(isinstance(outcome, PeerUnreachable) for outcome in outcomes)
        with pytest.raises(PeerUnreachable):
            destination.echo()
