"""The peers that other tests lean on do what those tests believe."""

from __future__ import annotations

import io
import urllib.error
from pathlib import Path

import pydicom
import pytest

from tests import peers, samples
from tests.edge import rawpeer
from tests.peers import Orthanc, StoreScp


@pytest.mark.peer("orthanc", "dcmtk")
def test_orthanc_with_our_configuration_keeps_every_compressed_transfer_syntax(orthanc: Orthanc) -> None:
    """Its bytes are not compared: Orthanc, too, encodes anew what it stores; and dcmsend may send implicit as explicit."""
    syntaxes = {pydicom.dcmread(p).file_meta.TransferSyntaxUID: p for p in samples.pydicom_files()}
    paths = [path for uid, path in syntaxes.items() if uid.is_compressed]
    assert len(paths) >= 5
    for path in paths:
        answer = peers.dcmsend(orthanc.port, path, called="ORTHANC")
        assert peers.success_count(answer) == 1, answer.stdout
    for path in paths:
        source = pydicom.dcmread(path)
        kept = pydicom.dcmread(io.BytesIO(orthanc.file(str(source.SOPInstanceUID))))
        assert kept.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
        assert kept.get("PixelData") == source.get("PixelData")


@pytest.mark.peer("dcmtk")
def test_as_sent_gives_each_data_set_once_as_dcmsend_encodes_it(tmp_path: Path) -> None:
    path = samples.pydicom_file("MR_small.dcm")
    sent = peers.as_sent([path, path], folder=tmp_path)
    (copy,) = sent.values()
    assert pydicom.dcmread(copy).PixelData == pydicom.dcmread(path).PixelData
    assert samples.dataset_bytes(copy) != samples.dataset_bytes(path), "then the docstring of as_sent is out of date"


@pytest.mark.peer("orthanc", "dcmtk")
def test_orthanc_with_our_configuration_rejects_a_wrong_called_ae_title(orthanc: Orthanc) -> None:
    answer = peers.echoscu(orthanc.port, called="SOMEBODY")
    assert answer.returncode != 0
    assert "Called AE Title Not Recognized" in answer.stdout


@pytest.mark.peer("orthanc")
def test_orthanc_with_our_configuration_wants_the_password_of_the_environment(orthanc: Orthanc) -> None:
    orthanc.PASSWORD = "guessed"  # type: ignore[misc]  # only what this client says, not what the server was told
    with pytest.raises(urllib.error.HTTPError, match="401"):
        orthanc.get("/system")


@pytest.mark.peer("orthanc")
def test_orthanc_with_our_configuration_knows_the_router(orthanc: Orthanc) -> None:
    router = orthanc.get("/modalities?expand")["router"]
    assert (router["AET"], router["Host"], router["Port"]) == ("ROUTER", "127.0.0.1", 11112)


@pytest.mark.peer("orthanc", "dcmtk")
def test_orthanc_sends_to_a_modality_and_is_back_with_its_images_after_a_restart(tmp_path: Path) -> None:
    scp = StoreScp(folder=tmp_path / "scp")
    pacs = Orthanc(folder=tmp_path / "pacs", modalities={"scp": (scp.ae_title, scp.port)})
    path = samples.pydicom_file("CT_small.dcm")
    with peers.running(scp, pacs):
        identifier = pacs.upload(path)
        pacs.stop()
        assert not peers.listens(pacs.port)
        pacs.start()
        pacs.send_to_modality("scp", [identifier])
        assert set(scp.received()) == {str(pydicom.dcmread(path).SOPInstanceUID)}
        scp.stop()
        with pytest.raises(urllib.error.HTTPError):
            pacs.send_to_modality("scp", [identifier])


@pytest.mark.peer("dcmtk")
def test_storescp_can_be_told_to_fail(tmp_path: Path) -> None:
    with StoreScp(folder=tmp_path, options=("--abort-after",)) as scp:
        assert peers.dcmsend(scp.port, samples.pydicom_file("CT_small.dcm"), called=scp.ae_title).returncode != 0


def test_a_program_that_is_not_there_is_named_with_its_package() -> None:
    with pytest.raises(peers.ProgramMissing, match="no-such-program is not installed"):
        peers.program("no-such-program")
    assert "Debian package dicom3tools" in str(peers.ProgramMissing("dciodvfy"))


def test_there_are_sample_files_of_many_kinds_on_every_machine() -> None:
    assert len(samples.pydicom_files()) >= 20


def test_a_wait_ends_with_an_assertion_that_says_what_was_waited_for() -> None:
    with pytest.raises(AssertionError, match="the impossible"):
        peers.wait_until(lambda: False, 0.05, "the impossible")


@pytest.mark.peer("dcmtk")
def test_successes_are_counted_from_what_dcmtk_prints(storescp: StoreScp) -> None:
    path = samples.pydicom_file("CT_small.dcm")
    for send in (peers.dcmsend, peers.storescu):
        answer = send(storescp.port, path, called=storescp.ae_title)
        assert peers.success_count(answer) == 1, answer.stdout


@pytest.mark.peer("dcmtk")
def test_what_storescp_is_still_writing_has_not_been_received(storescp: StoreScp) -> None:
    data_set = samples.dataset_bytes(samples.pydicom_file("CT_small.dcm"))
    uid = str(pydicom.dcmread(samples.pydicom_file("CT_small.dcm")).SOPInstanceUID)
    message = rawpeer.store(uid, data_set, step=4000)
    with rawpeer.RawPeer(storescp.port, deadline_s=60) as peer:
        peer.associated(called=storescp.ae_title.encode())
        peer.send(message[: len(message) // 2])
        peers.wait_until(lambda: list(storescp.received_folder.iterdir()), 60, "it has begun a file")
        assert storescp.received() == {}
        peer.send(message[len(message) // 2 :])
        assert peer.status() == 0
    assert set(storescp.received()) == {uid}


def test_a_program_of_our_own_environment_is_not_taken_for_the_one_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom brings a storescp: with the environment activated it comes first, and is not dcmtk's."""
    for folder in ("environment/bin", "bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "storescp").touch(mode=0o755)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("PATH", f"{tmp_path}/environment/bin:{tmp_path}/bin")
    assert peers.program("storescp") == tmp_path / "bin" / "storescp"
