"""Real senders: what dcmtk and pynetdicom send lies in the spool byte for byte, in the syntax that was agreed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, build_context
from pynetdicom.dsutils import encode

from tests import peers, samples

# Option of storescu -> the transfer syntax that it proposes; PS3.6 Annex A.
STORESCU_SYNTAXES = {
    "-xe": "1.2.840.10008.1.2.1",
    "-xb": "1.2.840.10008.1.2.2",
    "-xi": "1.2.840.10008.1.2",
    "-xd": "1.2.840.10008.1.2.1.99",
    "-xs": "1.2.840.10008.1.2.4.70",
    "-xy": "1.2.840.10008.1.2.4.50",
    "-xx": "1.2.840.10008.1.2.4.51",
    "-xv": "1.2.840.10008.1.2.4.90",
    "-xw": "1.2.840.10008.1.2.4.91",
    "-xt": "1.2.840.10008.1.2.4.80",
    "-xu": "1.2.840.10008.1.2.4.81",
    "-xr": "1.2.840.10008.1.2.5",
}


def syntax_of(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)


def one_of_each_syntax() -> list[Path]:
    """The smallest sample of each transfer syntax."""
    chosen: dict[str, Path] = {}
    for path in sorted(samples.storable(), key=lambda p: p.stat().st_size):
        if path.name not in ("SC_rgb_jpeg.dcm", "MR_truncated.dcm"):  # not what they say
            chosen.setdefault(syntax_of(path), path)
    return list(chosen.values())


@pytest.fixture(scope="module")
def as_sent(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Path]], dict[str, Path]]:
    """`peers.as_sent`, which takes seconds, once for both wires."""

    @cache
    def made(paths: tuple[Path, ...]) -> dict[str, Path]:
        return peers.as_sent(paths, folder=tmp_path_factory.mktemp("reference"))

    return lambda paths: made(tuple(paths))


@pytest.mark.peer("dcmtk")
def test_what_dcmsend_sends_arrives_byte_identical_in_every_syntax(node, as_sent) -> None:
    paths = one_of_each_syntax()
    sent = as_sent(paths)
    assert len(sent) > 8
    for path in paths:
        peers.dcmsend(node.port, path)
    received = {instance.sop_instance_uid: instance for instance in node.ledger.accepted}
    assert set(sent) <= set(received)  # storescp itself does not take every syntax
    # dcmsend itself makes explicit little endian of every uncompressed file, because it proposes that first.
    converted = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2"}
    assert {i.transfer_syntax_uid for i in received.values()} == {syntax_of(path) for path in paths} - converted
    for uid, reference in sent.items():
        assert received[uid].transfer_syntax_uid == syntax_of(reference)
        assert node.data_set(received[uid]) == samples.dataset_bytes(reference), reference


@pytest.mark.peer("dcmtk")
def test_every_real_radiograph_arrives_byte_identical(node, shared_data, as_sent) -> None:
    paths = [path for path in samples.shared_dicom() if path in samples.storable()]
    sent = as_sent(paths)
    done = peers.dcmsend(node.port, *paths)
    assert done.returncode == 0, done.stdout[-2000:]
    received = {instance.sop_instance_uid: instance for instance in node.ledger.accepted}
    assert len(received) == len(paths)
    for uid, reference in sent.items():
        assert node.data_set(received[uid]) == samples.dataset_bytes(reference), reference


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("option", STORESCU_SYNTAXES)
def test_each_syntax_that_storescu_proposes_is_agreed(start_node, option: str) -> None:
    """Whatever the file's own syntax is: storescu names what it would send first, and says what was accepted."""
    node = start_node()
    done = peers.storescu(node.port, samples.pydicom_file("CT_small.dcm"), options=("-d", option, "-R"))
    accepted = [line for line in done.stdout.splitlines() if "Accepted Transfer Syntax:" in line]
    assert accepted, done.stdout[-3000:]
    name = pydicom.uid.UID(STORESCU_SYNTAXES[option]).keyword
    words = {"-xe": "LittleEndianExplicit", "-xb": "BigEndianExplicit", "-xi": "LittleEndianImplicit"}
    if option in words:
        assert any(words[option] in line for line in accepted), (name, accepted)
    assert len(accepted) >= len(
        [line for line in done.stdout.splitlines() if "Context ID:" in line and "(Accepted)" in line]
    )


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize(("option", "syntax"), [(o, STORESCU_SYNTAXES[o]) for o in ("-xe", "-xi", "-xd")])
def test_storescu_is_received_in_the_uncompressed_syntax_that_it_prefers(start_node, option: str, syntax: str) -> None:
    node = start_node()
    done = peers.storescu(node.port, samples.pydicom_file("CT_small.dcm"), options=(option,))
    assert done.returncode == 0, done.stdout
    assert node.ledger.one().transfer_syntax_uid == syntax


@pytest.mark.peer("dcmtk")
def test_echoscu_is_answered_and_a_wrong_called_ae_title_is_told(node) -> None:
    assert peers.echoscu(node.port).returncode == 0
    wrong = peers.echoscu(node.port, called="WRONG")
    assert wrong.returncode != 0
    assert "Called AE Title Not Recognized" in wrong.stdout


@pytest.mark.peer("dcmtk")
def test_storescu_shows_a_refusal_as_a_refusal(start_node) -> None:
    node = start_node(free_byte_count_min=1)
    node.spool.free = 0
    done = peers.storescu(node.port, samples.pydicom_file("CT_small.dcm"), options=())
    assert "Refused: OutOfResources" in done.stdout


@pytest.mark.parametrize(
    "sop_class", ["1.2.840.10008.5.1.4.1.1.999999", "1.2.826.0.1.3680043.2.1143.99.1", "1.3.12.2.1107.5.9.1"]
)
def test_private_and_unknown_classes_are_stored(node, sop_class: str) -> None:
    ds = pydicom.dcmread(samples.pydicom_file("CT_small.dcm"))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    entity = AE("PYNETDICOM")
    association = entity.associate(
        "127.0.0.1", node.port, contexts=[build_context(sop_class, "1.2.840.10008.1.2.1")], ae_title="ROUTER"
    )
    assert association.is_established
    assert association.send_c_store(ds).Status == 0x0000
    assert association.send_c_store(ds).Status == 0x0000
    association.release()
    assert node.data_set(node.ledger.one()) == encode(ds, False, True)
    assert node.ledger.one().sop_class_uid == sop_class


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.2.1.1",  # Patient Root FIND
        "1.2.840.10008.5.1.4.31",  # Modality Worklist
        "1.2.840.10008.3.1.2.3.3",  # MPPS
        "1.2.840.10008.5.1.1.9",  # Basic Grayscale Print
        "1.2.840.10008.1.20.1",  # Storage Commitment
    ],
)
def test_other_services_are_not_negotiated(node, sop_class: str) -> None:
    entity = AE("PYNETDICOM")
    association = entity.associate("127.0.0.1", node.port, contexts=[build_context(sop_class)], ae_title="ROUTER")
    assert not association.is_established


def test_many_instances_of_many_classes_on_one_association(node) -> None:
    from pynetdicom import AllStoragePresentationContexts

    entity = AE("PYNETDICOM")
    association = entity.associate(
        "127.0.0.1", node.port, contexts=AllStoragePresentationContexts[:128], ae_title="ROUTER"
    )
    assert association.is_established
    assert len(association.accepted_contexts) == 128 - len(association.rejected_contexts)
    ds = pydicom.dcmread(samples.pydicom_file("CT_small.dcm"))
    for number in range(30):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        assert association.send_c_store(ds).Status == 0x0000
    association.release()
    assert len(node.ledger.accepted) == 30


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("option", ["-xb", "-xi"])
def test_big_endian_and_implicit_arrive_as_storescp_gets_them(start_node, tmp_path: Path, option: str) -> None:
    syntax = STORESCU_SYNTAXES[option]
    path = next(p for p in samples.storable() if syntax_of(p) == syntax)
    node = start_node()
    with peers.StoreScp(folder=tmp_path / "reference", options=(option.replace("-", "+"),)) as scp:
        assert peers.storescu(scp.port, path, called=scp.ae_title, options=(option,)).returncode == 0
        (reference,) = scp.files()
    assert syntax_of(reference) == syntax
    assert peers.storescu(node.port, path, options=(option,)).returncode == 0
    assert node.ledger.one().transfer_syntax_uid == syntax
    assert node.data_set(node.ledger.one()) == samples.dataset_bytes(reference)
