"""Commands as people and machines use them: what they print, `--json`, exit codes 0 (good), 1 (bad) and 2 (wrong use)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from router.core.lifecycle import TaskKind
from tests.cli.conftest import Site
from tests.peers import StoreScp, free_port
from tests.report.made import HEADER, encoded, meta

FAILED = "the peer refused it: 0xC000"


def fail(site: Site, *, count: int = 1) -> list[int]:
    """Deliveries that failed for good; their task numbers."""
    for number in range(count):
        site.receive({"SOPInstanceUID": f"1.2.3.{number}".encode()})
    with site.ledger() as ledger:
        tasks = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=600, limit=99)
        for task in tasks:
            ledger.defer(task, error=FAILED, at=None)
    return [task.task_id for task in tasks]


def counts(site: Site, kind: str = "deliver") -> dict[str, int]:
    lanes = site.here("queue", "--json").json["lanes"]
    return next(lane["counts"] for lane in lanes if lane["kind"] == kind)


def test_queue_says_what_is_owed_and_what_failed_to_people_and_to_machines(site: Site) -> None:
    (task,) = fail(site)
    shown = site.here("queue")
    assert shown.code == 0
    assert f"task {task}: deliver pacs 1.2.3.0: {FAILED}" in shown.out
    assert "router requeue --failed" in shown.out
    told = site.here("queue", "--json")
    assert told.code == 0
    assert {(lane["kind"], lane["target"]): lane["counts"] for lane in told.json["lanes"]} == {
        ("classify", "cxr"): {"ready": 1},
        ("deliver", "pacs"): {"failed": 1},
    }
    assert [(t["task_id"], t["state"], t["error"]) for t in told.json["failed"]] == [(task, "failed", FAILED)]


def test_queue_of_a_node_that_never_ran_is_bad_and_says_so(site: Site) -> None:
    (site.folder / "ledger.db").unlink()
    done = site.here("queue", "--json")
    assert (done.code, done.out) == (1, "")
    assert "has this node ever run?" in done.err


def test_requeue_puts_back_what_is_named_and_says_how_much(site: Site) -> None:
    tasks = fail(site, count=3)
    done = site.here("requeue", tasks[0], "--json")
    assert (done.code, done.json) == (0, {"put_back": 1, "asked_for": 1})
    assert counts(site) == {"ready": 1, "failed": 2}
    done = site.here("requeue", tasks[0], tasks[1], 4711, "--json")
    assert (done.code, done.json) == (1, {"put_back": 1, "asked_for": 3}), "one was put back before, one is unknown"
    done = site.here("requeue", 4711)
    assert done.code == 1
    assert "0 task(s) put back; 1 neither failed nor waiting" in done.out
    done = site.here("requeue", "--failed")
    assert (done.code, done.out) == (0, "1 task(s) put back\n")
    assert site.here("requeue", "--failed", "--json").json == {"put_back": 0, "asked_for": 0}
    assert counts(site) == {"ready": 3}


def test_requeue_of_one_kind_or_target_leaves_the_others(site: Site) -> None:
    fail(site, count=2)
    with site.ledger() as ledger:
        (task,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=600, limit=1)
        ledger.defer(task, error="no weights", at=None)
    assert site.here("requeue", "--failed", "--kind", "classify", "--json").json["put_back"] == 1
    assert counts(site) == {"failed": 2}
    done = site.here("requeue", "--failed", "--target", "pasc")
    assert done.code == 1
    assert "nothing was ever owed to 'pasc'; there: cxr, pacs" in done.err
    assert site.here("requeue", "--failed", "--target", "pacs", "--json").json["put_back"] == 2


@pytest.mark.parametrize(
    "arguments", [(), ("1", "--failed"), ("x",), ("1", "--target", "pacs"), ("--failed", "--kind", "carry")]
)
def test_requeue_used_wrongly_is_2_and_changes_nothing(site: Site, arguments: tuple[str, ...]) -> None:
    fail(site)
    assert site.here("requeue", *arguments).code == 2
    assert counts(site) == {"failed": 1}


def test_trace_tells_the_chain_of_custody_to_people_and_to_machines(site: Site) -> None:
    image = site.receive()
    (report,) = site.analyse()
    site.deliver()
    for uid in (image.sop_instance_uid, image.study_instance_uid, report.sop_instance_uid):
        told = site.here("trace", uid, "--json")
        assert told.code == 0
        assert [line["what"] for line in told.json] == ["received", "analysed", "made", "delivered", "delivered"]
        assert {line["digest"] for line in told.json} == {image.digest, report.digest}
    shown = site.here("trace", image.sop_instance_uid)
    assert shown.code == 0
    assert f"SHA-256 {report.digest[:16]}" in shown.out


def test_trace_of_what_nobody_sent_is_1(site: Site) -> None:
    shown = site.here("trace", "1.2.3")
    assert (shown.code, shown.out) == (1, "")
    assert "knows no SOP instance or study 1.2.3" in shown.err
    told = site.here("trace", "1.2.3", "--json")
    assert (told.code, told.json) == (1, [])
    assert site.here("trace").code == 2


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.dcm"
    uid = HEADER["SOPInstanceUID"].decode()
    path.write_bytes(meta(sop_instance=uid) + encoded(HEADER))
    return path


def test_explain_says_which_rule_matches_and_what_would_be_done(site: Site, image: Path) -> None:
    shown = site.here("explain", image)
    assert shown.code == 0
    assert re.search(r'chest radiographs +yes +Modality is "CR"', shown.out)
    assert shown.out.rstrip().endswith("deliver the original to pacs\nclassify by cxr\nsend result sr of cxr to pacs")
    told = site.here("explain", image, "--json")
    assert (told.code, told.json["taken"], told.json["deliver"]) == (0, True, ["pacs"])


def test_explain_of_what_the_node_would_refuse_is_1(site: Site, image: Path) -> None:
    site.config.write_text(site.config.read_text().replace('Modality = ["CR"]', 'Modality = ["CT"]'))
    shown = site.here("explain", image)
    assert shown.code == 1
    assert "refuse with 0x0122" in shown.out
    assert site.here("explain", image, "--json").code == 1
    (site.folder / "text").write_text("not DICOM")
    assert site.here("explain", site.folder / "text").code == 1
    assert site.here("explain", site.folder / "none").code == 2


def test_check_lists_the_configuration_or_every_problem_of_it(site: Site) -> None:
    told = site.here("check", "--json")
    assert told.code == 0
    assert (told.json["valid"], told.json["problems"]) == (True, [])
    assert list(told.json["classifiers"]) == ["cxr"]
    assert told.json["destinations"]["pacs"]["options"]["ae_title"] == "PACS"
    assert told.json["rules"][0]["deliver"] == ["pacs"]
    assert "echo" not in told.json
    site.config.write_text(site.config.read_text() + '\n[nodes]\nae = "X"\n[log]\nlevel = "loud"\n')
    told = site.here("check", "--json")
    assert (told.code, told.json["valid"], len(told.json["problems"])) == (1, False, 2)
    shown = site.here("check")
    assert (shown.code, shown.out) == (1, "")
    assert "The configuration is refused:" in shown.err


@pytest.mark.peer("dcmtk")
def test_check_echo_and_echo_ask_every_destination(site: Site, storescp: StoreScp) -> None:
    base = site.config.read_text()
    here = base.replace('"PACS"', f'"{storescp.ae_title}"').replace("port = 104", f"port = {storescp.port}")
    site.config.write_text(here)
    told = site.here("check", "--echo", "--json")
    assert (told.code, told.json["echo"]) == (0, {"pacs": {"answers": True, "problem": ""}})
    assert site.here("check", "--echo").code == 0
    assert site.here("echo", "pacs", "--json").json == {"destination": "pacs", "answers": True, "problem": ""}
    assert site.here("echo", "pacs").out == "pacs: answers\n"
    site.config.write_text(base.replace("port = 104", f"port = {free_port()}"))
    told = site.here("check", "--echo", "--json")
    assert told.code == 1
    assert "nothing listens on" in told.json["echo"]["pacs"]["problem"]
    assert site.here("check", "--echo").code == 1
    told = site.here("echo", "pacs", "--json")
    assert (told.code, told.json["answers"]) == (1, False)
    assert site.here("echo", "nobody").code == 1
    assert site.here("echo").code == 2


def test_models_list_is_a_table_or_json(site: Site) -> None:
    told = site.run("models", "list", "--folder", site.folder / "weights", "--json")
    assert told.code == 0
    (row,) = (row for row in told.json if row["name"] == "densenet121-res224-all")
    assert (row["here"], len(row["labels"])) == (False, 18)
    shown = site.run("models", "list", "--folder", site.folder / "weights")
    assert shown.code == 0
    assert "densenet121-res224-all" in shown.out
    assert site.run("models", "lists").code == 2


def test_send_tells_machines_what_became_of_each_file(site: Site, image: Path) -> None:
    done = site.here("send", image, "--to", f"NOBODY@127.0.0.1:{free_port()}", "--json")
    assert done.code == 1
    assert [(row["status"], Path(row["name"]).name) for row in done.json] == [("failed", "image.dcm")]


@pytest.mark.parametrize("command", ["queue", "trace", "explain", "check", "requeue", "echo", "send", "classify"])
def test_a_wrong_option_is_2(site: Site, command: str) -> None:
    assert site.here(command, "--jsno").code == 2


def test_what_machines_read_is_json_and_nothing_else(site: Site, image: Path) -> None:
    fail(site)
    for arguments in (("queue",), ("trace", "1.2.3.0"), ("explain", image), ("check",), ("requeue", "--failed")):
        assert json.loads(site.here(*arguments, "--json").out) is not None
