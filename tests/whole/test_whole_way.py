"""A real sender, a real `router serve`, a real Orthanc: what a hospital gets on the first day."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pytest

from router.core.findings import NotAnalysed
from router.core.instance import InstanceKind
from tests.peers import (
    Orthanc,
    StoreScp,
    as_sent,
    dciodvfy,
    dcmsend,
    dsrdump,
    echoscu,
    free_port,
    storescu,
    success_count,
    wait_until,
)
from tests.samples import dataset_bytes, pydicom_file, shared_dicom, storable
from tests.whole.router_process import CHEST_RULE, EVERYTHING_RULE, RouterProcess, destination

pytestmark = pytest.mark.peer("orthanc", "dcmtk")

#: Chest images by their header that nevertheless hold nothing to classify, and the code of the reason.
NOT_ANALYSED = {
    "chrJapMulti.dcm": "no_pixels",
    "chrJapMultiExplicitIR6.dcm": "no_pixels",
    "chrKoreanMulti.dcm": "no_pixels",
    "highdicom_dx_DOG_thorax.dcm": "animal",
}


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def named_by_the_chest_rule(path: Path) -> bool:
    """The rule in words of its own: CR or DX, and CHEST, THORAX or no body part."""
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    body_part = str(ds.get("BodyPartExamined", "") or "").strip().upper()
    return ds.get("Modality") in ("CR", "DX") and body_part in ("CHEST", "THORAX", "")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_sample_arrives_as_it_was_sent_and_exactly_the_chest_images_get_one_report(
    tmp_path: Path, orthanc: Orthanc, storescp: StoreScp
) -> None:
    files = storable()
    sent = as_sent(files, folder=tmp_path / "sent")
    # Real archives disagree with some of pydicom's odd files; what Orthanc takes directly it must get through us.
    tables = (
        destination("pacs", orthanc.ae_title, orthanc.port),
        destination("exact", storescp.ae_title, storescp.port),
    )
    rules = (CHEST_RULE, EVERYTHING_RULE.replace('["pacs"]', '["pacs", "exact"]'))
    with RouterProcess(tmp_path / "node", *tables, rules=rules) as node:
        for path in files:
            done = dcmsend(node.port, path)
            if uid_of(path) in sent:
                assert success_count(done) == 1, f"{path.name}: {done.stdout[-2000:]}"
        node.settle(300)
        exact = storescp.received()
        by_uid = {uid_of(path): path for path in files if uid_of(path) in sent}
        assert set(by_uid) <= set(exact), "every original is at the destination"
        altered = [by_uid[u].name for u in by_uid if dataset_bytes(exact[u]) != dataset_bytes(sent[u])]
        assert not altered, f"data sets that arrived with other bytes than were sent: {altered}"
        syntaxes = {u: pydicom.dcmread(p, stop_before_pixels=True).file_meta.TransferSyntaxUID for u, p in sent.items()}
        arrived = {u: pydicom.dcmread(exact[u], stop_before_pixels=True).file_meta.TransferSyntaxUID for u in by_uid}
        assert arrived == {u: syntaxes[u] for u in by_uid}, "in the transfer syntax they came in"

        statuses = dict(zip(by_uid, node.statuses(list(by_uid)), strict=True))
        reported, expected = set(), set()
        for uid, path in by_uid.items():
            status = statuses[uid]
            assert status is not None
            outcome = status.outcomes.get("cxr")
            if not named_by_the_chest_rule(path):
                assert outcome is None, f"{path.name} was classified, and no rule asks for it"
            else:
                assert outcome is not None, f"{path.name} has neither a prediction nor a reason"
                if path in shared_dicom() and path.name not in NOT_ANALYSED:
                    expected.add(path.name)
            if path.name in NOT_ANALYSED:
                assert isinstance(outcome, NotAnalysed)
                assert outcome.code == NOT_ANALYSED[path.name]
            if status.results:
                assert [r.instance.kind for r in status.results] == [InstanceKind.SR]
                if path in shared_dicom():
                    reported.add(path.name)
        assert reported == expected

        at_orthanc = orthanc.instances()
        reports = [r.instance for s in statuses.values() if s for r in s.results]
        assert {r.sop_instance_uid for r in reports} <= set(at_orthanc)
        for status in statuses.values():
            for result in status.results if status else ():
                assert status is not None
                report = _report(orthanc, result.instance.sop_instance_uid, tmp_path)
                ds = pydicom.dcmread(report)
                assert ds.StudyInstanceUID == status.instance.study_instance_uid
                assert ds.SeriesInstanceUID != status.instance.series_instance_uid
                assert ds.Modality == "SR"
                references = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
                assert references.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == status.instance.sop_instance_uid
                assert dciodvfy(report) == []
                assert dsrdump(report).returncode == 0
        refused = [task for task in _failed(node) if task.target == "pacs"]
        directly = _refused_by_orthanc(tmp_path, [by_uid[t.sop_instance_uid] for t in refused])
        assert {t.sop_instance_uid for t in refused} == directly, (
            "only what Orthanc refuses directly is parked, visibly"
        )
        assert node.events("worker.crashed") == []


def _failed(node: RouterProcess) -> Sequence[object]:
    from router.ledger.store import SqlLedger

    ledger = SqlLedger(node.ledger_url)
    try:
        return ledger.queries.failed()
    finally:
        ledger.close()


def _refused_by_orthanc(tmp_path: Path, paths: Sequence[Path]) -> set[str]:
    if not paths:
        return set()
    with Orthanc(folder=tmp_path / "direct") as direct:
        return {uid_of(path) for path in paths if success_count(dcmsend(direct.port, path, called="ORTHANC")) == 0}


def _report(orthanc: Orthanc, uid: str, folder: Path) -> Path:
    path = folder / f"{uid}.dcm"
    path.write_bytes(orthanc.file(uid))
    return path


def test_c_echo_storescu_dcmsend_and_orthancs_send_to_modality_all_deliver_into_the_router(tmp_path: Path) -> None:
    phantoms = _phantoms(tmp_path, 3)
    port = free_port()
    with (
        Orthanc(folder=tmp_path / "orthanc", modalities={"router": ("ROUTER", port)}) as orthanc,
        RouterProcess(tmp_path / "node", destination("pacs", orthanc.ae_title, orthanc.port), port=port) as node,
    ):
        assert echoscu(node.port).returncode == 0
        assert success_count(storescu(node.port, phantoms[0])) == 1
        assert success_count(dcmsend(node.port, phantoms[1])) == 1
        own = orthanc.upload(phantoms[2])
        orthanc.send_to_modality("router", [own])
        node.settle()
        uids = [uid_of(path) for path in phantoms]
        statuses = node.statuses(uids)
        assert all(status is not None and len(status.results) == 1 for status in statuses)
        assert set(uids) <= set(orthanc.instances())
        third = statuses[2]
        assert third is not None
        assert third.deliveries == (), "what came from Orthanc is not sent back to it"
        assert third.results[0].instance.sop_instance_uid in orthanc.instances(), "its report is"
        assert orthanc.instance_count() == 6


def test_router_send_takes_files_folders_and_zip_archives_and_unpacks_nothing_to_disk(
    tmp_path: Path, plain_node: RouterProcess, storescp: StoreScp, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantoms = _phantoms(tmp_path, 3)
    folder = tmp_path / "folder" / "deeper"
    folder.mkdir(parents=True)
    phantoms[0].rename(folder / "a.dcm")
    (folder / "readme.txt").write_text("not DICOM")
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writing:
        writing.write(phantoms[1], "DICOM/IM1")
        writing.writestr("DICOM/LIESMICH", "not DICOM")
    empty = tmp_path / "tmp"
    empty.mkdir()
    monkeypatch.setenv("TMPDIR", str(empty))
    address = f"ROUTER@127.0.0.1:{plain_node.port}"
    done = plain_node.run("send", tmp_path / "folder", archive, phantoms[2], "--to", address)
    assert done.returncode == 0, done.stdout
    assert "skipped: " in done.stdout
    assert list(empty.iterdir()) == []
    plain_node.settle()
    originals = {uid_of(folder / "a.dcm"): folder / "a.dcm", uid_of(phantoms[2]): phantoms[2]}
    received = storescp.received()
    for uid, path in originals.items():
        assert dataset_bytes(received[uid]) == dataset_bytes(path)
    assert dataset_bytes(received[uid_of(phantoms[1])]) == dataset_bytes(phantoms[1])


def test_a_destination_that_is_down_gets_everything_when_it_is_back_also_after_a_kill(tmp_path: Path) -> None:
    phantoms = _phantoms(tmp_path, 3)
    port = free_port()
    node = RouterProcess(tmp_path / "node", destination("pacs", "STORESCP", port, probe_cap_s=1))
    try:
        node.start()
        assert success_count(dcmsend(node.port, *phantoms[:2])) == 2
        wait_until(lambda: node.events("destination.down"), what="the node notices that the destination is down")
        node.kill()
        node.start()
        assert success_count(dcmsend(node.port, phantoms[2])) == 1
        with StoreScp(folder=tmp_path / "storescp", port=port) as storescp:
            node.settle()
            received = storescp.received()
            for path in phantoms:
                assert dataset_bytes(received[uid_of(path)]) == dataset_bytes(path)
            assert len(received) == 6, "three originals and their reports, each once"
    finally:
        node.kill()


def test_originals_keep_flowing_while_the_classifier_is_killed_again_and_again(
    tmp_path: Path, plain_node: RouterProcess, storescp: StoreScp
) -> None:
    import os
    import signal

    phantoms = _phantoms(tmp_path, 4)
    started = wait_until(lambda: plain_node.events("classify.child_started"), 60)
    os.kill(int(started[-1]["pid"]), signal.SIGKILL)
    assert success_count(dcmsend(plain_node.port, *phantoms)) == 4
    uids = [uid_of(path) for path in phantoms]
    wait_until(lambda: set(uids) <= set(storescp.received()), what="originals arrive without a classifier")
    plain_node.settle()
    for status in plain_node.statuses(uids):
        assert status is not None
        assert list(status.outcomes) == ["cxr"], "exactly one outcome"
    assert plain_node.health() == (True, [])


def test_sigterm_ends_the_node_with_exit_code_0_and_the_next_start_goes_on(
    tmp_path: Path, plain_node: RouterProcess, storescp: StoreScp
) -> None:
    phantoms = _phantoms(tmp_path, 2)
    assert success_count(dcmsend(plain_node.port, *phantoms)) == 2
    assert plain_node.stop() == 0
    assert plain_node.events("node.stopped")
    plain_node.start()
    plain_node.settle()
    assert len(storescp.received()) == 4


def test_weights_that_cannot_be_had_are_one_clear_line_and_no_port_is_opened(tmp_path: Path) -> None:
    classifier = f'type = "xrv"\nweights = "densenet121-res224-all"\nfetch = false\nfolder = "{tmp_path}/none"'
    node = RouterProcess(tmp_path / "node", destination("pacs", "X", 104), classifier=classifier)
    node.start(wait=False)
    assert node.wait() == 1
    last = node.log.read_text().splitlines()[-1]
    assert last.startswith("WeightsUnavailable: no weights densenet121-res224-all")
    assert "router models fetch densenet121-res224-all" in last
    assert '"node.ready"' not in node.log.read_text()


def test_a_second_node_on_the_same_spool_refuses_to_start(tmp_path: Path, plain_node: RouterProcess) -> None:
    second = RouterProcess(tmp_path / "second", destination("pacs", "X", 104))
    text = second.config.read_text().replace(str(second.folder / "spool"), str(plain_node.folder / "spool"))
    second.config.write_text(text)
    second.start(wait=False)
    assert second.wait() == 1
    assert "is in use by another node" in second.log.read_text()


def _phantoms(folder: Path, count: int) -> list[Path]:
    from router.classify.phantom import phantom_dicom

    paths = []
    for seed in range(count):
        path = folder / f"phantom-{seed}.dcm"
        phantom_dicom(seed, rows=256, columns=256).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def test_ct_mr_and_rt_objects_pass_untouched_and_unclassified(
    plain_node: RouterProcess, storescp: StoreScp, tmp_path: Path
) -> None:
    files = [pydicom_file(name) for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "rtdose.dcm")]
    sent = as_sent(files, folder=tmp_path / "sent")
    assert success_count(dcmsend(plain_node.port, *files)) == 4
    plain_node.settle()
    received = storescp.received()
    assert {u: dataset_bytes(p) for u, p in received.items()} == {u: dataset_bytes(p) for u, p in sent.items()}
    assert all(s is not None and not s.outcomes for s in plain_node.statuses(list(sent)))


def test_the_same_uid_with_other_bytes_is_delivered_as_well_and_shown_as_a_conflict(
    tmp_path: Path,
) -> None:
    first = _phantoms(tmp_path, 1)[0]
    ds = pydicom.dcmread(first)
    ds.ImageComments = "other bytes under the same UID"
    second = tmp_path / "second.dcm"
    ds.save_as(second)
    unique = ("+xa", "+uf")  # a file for each instance that comes, also under a UID that is there already
    with (
        StoreScp(folder=tmp_path / "storescp", options=unique) as storescp,
        RouterProcess(tmp_path / "node", destination("pacs", storescp.ae_title, storescp.port)) as node,
    ):
        for path in (first, second, first, second):
            assert success_count(dcmsend(node.port, path)) == 1
        node.settle()
        originals = [p for p in storescp.files() if pydicom.dcmread(p, stop_before_pixels=True).Modality == "CR"]
        assert sorted(map(dataset_bytes, originals)) == sorted([dataset_bytes(first), dataset_bytes(second)])
        assert len(node.events("instance.conflict")) == 1
        assert len(node.events("instance.duplicate")) == 2
        assert "router_conflicts 1.0" in node.get("/metrics")[1]
        assert '<span class="figure">1</span>conflicts' in node.get("/")[1]
        shown = node.run("trace", uid_of(first)).stdout
    assert "conflict" in shown
    assert (shown.count("BLAKE3"), shown.count("SHA-256")) == (2, 2), "two originals and their reports"
