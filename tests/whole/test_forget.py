"""`router forget` beside a running node, refused, by force, and cut short after every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router import forgotten, settings
from router.cli import cli
from router.errors import StillOwed
from router.faults import FAULT_POINTS
from router.ledger.store import SqlLedger
from tests.edge.rawpeer import EXPLICIT, RawPeer, context, store
from tests.ledger.made import instance, plan
from tests.report.made import CR, HEADER, encoded
from tests.whole.router_process import RouterProcess

PLANTED = {
    "PatientID": "PID-4711-X",
    "AccessionNumber": "ACC-0815",
    "StudyDescription": "Geheimes",
    "PatientName": "Gerda^G",
}
STUDY, UID = HEADER["StudyInstanceUID"].decode(), HEADER["SOPInstanceUID"].decode()
KEY = "0" * 28
_RULE = '[[rules]]\nname = "all"\ndeliver = ["files"]\n'


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RouterProcess]:
    """It writes what it delivers into a folder beside its own; not started."""
    files = f'\n[destinations.files]\ntype = "folder"\npath = "{tmp_path / "delivered"}"\n'
    node = RouterProcess(tmp_path / "node", files, rules=[_RULE], classifier="")
    node.config.write_text(node.config.read_text() + '\n[log]\nlevel = "debug"\n')
    yield node
    node.kill()


def send(node: RouterProcess) -> None:
    """A radiograph with the planted names."""
    header = {**HEADER, **{keyword: value.encode() for keyword, value in PLANTED.items()}}
    with RawPeer(node.port) as peer:
        peer.associated(context(1, CR, EXPLICIT))
        peer.send(store(UID, encoded(header), sop_class=CR))
        assert peer.status() == 0


def holders(node: RouterProcess) -> set[str]:
    """Files of the node in which a planted name stands; «audit» for those of the audit trail."""
    values = [value.split("^")[0].encode() for value in PLANTED.values()]
    files = [path for path in node.folder.rglob("*") if path.is_file() and any(v in path.read_bytes() for v in values)]
    return {"audit" if path.parent.name == "audit" else path.name for path in files}


def forget(node: RouterProcess, *options: str) -> Result:
    """As another process would, beside the node's."""
    return CliRunner().invoke(cli, ["forget", "--study", STUDY, "--config", str(node.config), *options])


def held(node: RouterProcess, *, deliver: tuple[str, ...] = ()) -> Path:
    """One image in ledger and spool of a node that does not run; its file."""
    ledger = SqlLedger(node.ledger_url)
    ledger.accept(instance(UID, study_instance_uid=STUDY, spool_key=KEY, header=PLANTED), plan(deliver=deliver))
    ledger.close()
    file = node.spool_folder / "objects" / KEY[6:8] / KEY
    file.parent.mkdir(parents=True)
    file.write_text(PLANTED["PatientID"])
    return file


def test_a_study_is_forgotten_while_the_node_runs_and_only_the_audit_trail_knows_of_it(node: RouterProcess) -> None:
    node.start()
    send(node)
    node.settle()
    assert len(holders(node)) >= 2, "spool and ledger"
    done = forget(node)
    assert (done.exit_code, done.output) == (0, "1 instance(s) forgotten\n")
    shown = done.output + node.get("/metrics")[1] + node.get("/health/ready")[1]
    assert forget(node).exit_code == 1, "there is no such study any more"
    assert node.statuses([UID]) == [None]
    send(node)
    node.settle()
    assert node.statuses([UID]) != [None], "the node goes on, and takes it again"
    assert forget(node).exit_code == 0
    assert node.stop() == 0
    assert holders(node) == {"audit"}
    assert [value for value in PLANTED.values() if value in shown] == []
    (audited,) = (node.folder / "audit").glob("*.log")
    assert audited.read_text().count('csd-code="110105"') == 2


def test_it_is_refused_while_something_is_owed_but_for_force(node: RouterProcess) -> None:
    file = held(node, deliver=("files",))
    refused = forget(node)
    assert isinstance(refused.exception, StillOwed)
    assert file.exists()
    assert node.statuses([UID]) != [None]
    forced = forget(node, "--force", "--json")
    assert (forced.exit_code, '"given_up_count": 1' in forced.output) == (0, True)
    assert holders(node) == {"audit"}, "also that it was refused"


def test_what_cannot_be_audited_is_not_done(node: RouterProcess) -> None:
    file = held(node)
    (node.folder / "audit").write_text("no folder")
    assert forget(node).exit_code == 1
    assert file.exists()
    assert node.statuses([UID]) != [None]


@pytest.mark.parametrize("point", [name for name in FAULT_POINTS if name.startswith("forget.")])
def test_cut_short_after_any_step_it_is_repeated_and_done(
    node: RouterProcess, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(BaseException):
        """The power is gone: every step before was durable."""

    def cut(name: str) -> None:
        if name == point:
            raise Cut

    file = held(node)
    ledger = SqlLedger(node.ledger_url)
    try:
        with monkeypatch.context() as patched, pytest.raises(Cut):
            patched.setattr(forgotten, "fault_point", cut)
            forgotten.forget_study(settings.load(node.config), ledger, STUDY, force=False)
    finally:
        ledger.close()
    again = forget(node)
    assert again.exit_code == (1 if point == "forget.committed" else 0), again.output
    assert not file.exists()
    assert holders(node) == {"audit"}
