"""Commands that show something of patients or change what is owed stand in the audit trail, like the pages."""

from __future__ import annotations

import re

import pytest

from router.audit.trail import process_owner
from router.core.lifecycle import TaskKind
from tests.cli.conftest import Done, Site

SECRET = {"PatientID": b"PID-4711"}


def looks(site: Site) -> list[str]:
    return [line for line in site.audited() if 'originalText="DICOM Instances Accessed"' in line]


def by_command(line: str) -> bool:
    found = re.search(r'<ActiveParticipant UserID="([^"]*)" UserName="([^"]*)" UserIsRequestor="true"', line)
    return found is not None and found.groups() == (process_owner(), "command line")


@pytest.mark.parametrize(
    "command",
    [
        ("trace", "{image}"),
        ("trace", "{study}"),
        ("trace", "{report}", "--json"),
        ("trace", "{image}", "--fhir"),
        ("explain", "{image}"),
        ("explain", "--last", "5", "--json"),
    ],
    ids=" ".join,
)
def test_a_look_is_written_down_with_who_and_which_study(site: Site, command: tuple[str, ...]) -> None:
    image = site.receive(SECRET)
    (report,) = site.analyse()
    uids = {
        "image": image.sop_instance_uid,
        "study": image.study_instance_uid,
        "report": report.sop_instance_uid,
    }
    assert site.here(*(part.format(**uids) for part in command)).out
    (line,) = looks(site)
    assert by_command(line)
    assert f'ParticipantObjectID="{image.study_instance_uid}"' in line


def test_putting_back_is_written_down_with_what_and_how_many(site: Site) -> None:
    site.receive()
    with site.ledger() as ledger:
        (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=600, limit=1)
        ledger.defer(task, error="refused", at=None)
    for arguments, what in (
        ((task.task_id,), f"tasks {task.task_id}"),
        (("--failed",), "all failed"),
        (("--failed", "--kind", "deliver", "--target", "pacs"), "all failed: deliver pacs"),
    ):
        assert site.here("requeue", *arguments).code == 0
        line = site.audited()[-1]
        assert by_command(line)
        assert 'originalText="Use of Restricted Function"' in line
        assert f'ParticipantObjectID="{what}"' in line
    counts = re.findall(r'type="count" value="(\w+=*)"', "".join(site.audited()))
    assert counts == ["MQ==", "MA==", "MA=="], "1, 0 and 0, in base64"


def test_forgetting_names_the_command_line(site: Site) -> None:
    image = site.receive()
    site.here("forget", "--study", image.study_instance_uid, "--force")
    assert by_command(site.audited()[-1])


def test_what_the_ledger_does_not_know_and_what_shows_nothing_of_patients_is_no_look(site: Site) -> None:
    site.receive()
    for arguments in (("trace", "1.2.3.4"), ("explain", "1.2.3.4"), ("queue",), ("queue", "--json"), ("check",)):
        site.here(*arguments)
    assert site.audited() == []


def test_what_cannot_be_written_down_is_neither_shown_nor_done(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    image = site.receive(SECRET)
    (task,) = _failed(site)
    monkeypatch.setattr("router.audit.folder.AuditFolder.append", _full)
    for arguments in (
        ("trace", image.sop_instance_uid),
        ("trace", image.sop_instance_uid, "--json"),
        ("explain", image.sop_instance_uid),
        ("requeue", str(task)),
    ):
        done: Done = site.here(*arguments)
        assert (done.code, done.out) == (1, ""), arguments
        assert "the audit trail cannot be written (No space left on device)" in done.err
    with site.ledger() as ledger:
        assert [one.task_id for one in ledger.queries.failed()] == [task]


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def _failed(site: Site) -> list[int]:
    with site.ledger() as ledger:
        (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=600, limit=1)
        ledger.defer(task, error="refused", at=None)
    return [task.task_id]
