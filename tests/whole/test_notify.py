"""People are told: a real node, a web server that stays, a mail server that comes late, and a kill between sending and writing down."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.classify.phantom import phantom_dicom
from router.cli import cli
from router.selftest.destination import LoopbackDestination
from tests.notify.servers import HOST, PASSWORD, USER, Hooks, Mails, make_certificate
from tests.peers import dcmsend, free_port, wait_until
from tests.whole.router_process import CHEST_RULE, RouterProcess, destination

DEADLINE_S = 120
PLANTED = {
    "PatientName": "Gerda^Geheim",
    "PatientID": "PID-4711-X",
    "AccessionNumber": "ACC-0815",
    "PatientBirthDate": "19330722",
    "StudyDescription": "Thorax_streng_vertraulich",
}
SECRETS = (PASSWORD, "hook-secret-0042", "token-0043")


def topics(name: str) -> str:
    return f"""
[notify.{name}]
retry_first_s = 0.1
retry_cap_s = 0.5
attempts_max = 1000
destination_down = {{ after_s = 0 }}
task_failed = {{ gather_s = 0, again_s = 0 }}

[[notify.{name}.findings]]
classifier = "cxr"
score_min = 0
gather_s = 0
"""


@pytest.mark.peer("dcmsend")
def test_each_is_told_once_through_a_kill_an_outage_and_a_restart_and_nothing_of_the_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    image = phantom_dicom(1, rows=256, columns=256)
    for keyword, value in PLANTED.items():
        setattr(image, keyword, value)
    path = tmp_path / "image.dcm"
    image.save_as(path, enforce_file_format=True)
    pacs = LoopbackDestination()
    pacs.port, mail_port = free_port(), free_port()
    tables = f"""
{destination("pacs", pacs.ae_title, pacs.port, probe_cap_s=0.5)}
{topics("hook")}
[notify.hook.webhook]
url_from = "env:HOOK_URL"
secret_from = "env:HOOK_SECRET"
headers_from = {{ X-Token = "env:HOOK_TOKEN" }}
{topics("mail")}
[notify.mail.email]
host = "{HOST}"
port = {mail_port}
ca_file = {json.dumps(str(certificate))}
user = "{USER}"
password_from = "env:MAIL_PASSWORD"
from_address = "router@hospital.example"
to = ["it@hospital.example"]
"""
    node = RouterProcess(tmp_path / "node", tables, rules=[CHEST_RULE], classifier='type = "demo"\nprocesses = 1')
    node.config.write_text(
        node.config.read_text().replace("[web]\n", '[web]\npublic_url = "https://router.example"\n')
        + '\n[log]\nlevel = "debug"\n'
    )
    with Hooks() as hooks:
        environment = {
            "HOOK_URL": f"http://{HOST}:{hooks.port}/",
            "HOOK_SECRET": SECRETS[1],
            "HOOK_TOKEN": SECRETS[2],
            "MAIL_PASSWORD": PASSWORD,
        }
        node.environment |= {**environment, "ROUTER_FAULT": "notify.told:1"}
        try:
            node.start()
            dcmsend(node.port, path)
            wait_until(node.ended, DEADLINE_S, "it is killed after the first notification was taken")
            node.kill()
            (killed,) = {headers["webhook-id"] for headers, _ in hooks.taken}
            del node.environment["ROUTER_FAULT"]
            node.start()
            wait_until(lambda: hooks.of("destination_down") and hooks.of("finding"), DEADLINE_S, "both are told")
            pacs.start()  # it takes images and no reports: these fail for good
            try:
                wait_until(lambda: hooks.of("destination_up") and hooks.of("task_failed"), DEADLINE_S, "both are told")
            except AssertionError:
                print(
                    [message["event"] for message in hooks.messages], *node.log.read_text().splitlines()[-60:], sep="\n"
                )
                raise
            wait_until(lambda: node.events("notify.deferred"), DEADLINE_S, "mail was tried, and nobody was there")
            with Mails(certificate, port=mail_port) as mails:
                wait_until(lambda: len(mails.taken) >= 4, DEADLINE_S, "mail is told the same later")
                node.settle()
                for name, value in environment.items():
                    monkeypatch.setenv(name, value)
                tried = CliRunner().invoke(cli, ["notify", "--test", "mail", "--config", str(node.config)])
                assert tried.exit_code == 0, tried.output
                shown = CliRunner().invoke(cli, ["notify", "--json", "--config", str(node.config)]).output
                shown += node.get("/metrics")[1]
        finally:
            node.kill()
            pacs.stop()
    copies = Counter(headers["webhook-id"] for headers, _ in hooks.taken)
    assert {uid: count for uid, count in copies.items() if count > 1} == {killed: 2}, "once each, but for the kill"
    last = {message["id"]: message for message in hooks.messages}.values()
    assert Counter(message["event"] for message in last)["destination_down"] == 1
    assert Counter(message["event"] for message in last)["destination_up"] == 1
    (finding,) = (message for message in last if message["event"] == "finding")
    assert {item["label"] for item in finding["items"]} == {"Effusion", "Pneumothorax", "Cardiomegaly", "Nodule"}
    assert finding["items"][0]["sop_instance_uid"] == str(image.SOPInstanceUID)
    assert finding["items"][0]["link"].startswith("https://router.example/images/")
    assert "demonstration" in finding["text"]
    mailed = Counter(str(mail["Message-ID"]) for mail in mails.taken)
    assert set(mailed.values()) == {1}
    assert sorted(str(mail["Subject"]) for mail in mails.taken if "test" not in mail["Subject"]) == sorted(
        message["subject"] for message in last
    ), "both places hear the same"
    order = [str(mail["Subject"]).rpartition(" ")[2] for mail in mails.taken if "destination pacs" in mail["Subject"]]
    assert order == ["down", "back"], "in this order, also where the first had to wait"
    messages = [body.decode() for _, body in hooks.taken] + [mail.as_string() for mail in mails.taken]
    everything = "\n".join([*messages, node.log.read_text(), shown])
    assert [word for word in (*PLANTED.values(), *SECRETS) if word.split("^")[0] in everything] == []


def test_a_secret_that_is_not_there_is_told_before_a_port_opens_and_by_check(tmp_path: Path) -> None:
    node = RouterProcess(
        tmp_path / "node",
        topics("hook"),
        f'[notify.hook.webhook]\nurl = "http://{HOST}:9/"\nsecret_from = "file:{tmp_path}/gone"\n',
        destination("pacs", "PACS", 104),
        rules=[CHEST_RULE],
    )
    checked = CliRunner().invoke(cli, ["check", "--json", "--config", str(node.config)])
    assert checked.exit_code == 1
    assert json.loads(checked.output)["problems"] == [
        f"notify.hook: the secret file:{tmp_path}/gone cannot be read: No such file or directory"
    ]
