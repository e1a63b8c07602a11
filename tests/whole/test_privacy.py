"""Names and numbers of patients, planted wherever a peer or a browser can put them, are in nothing that a node writes or shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner
from sqlalchemy.exc import DBAPIError

from router.classify.phantom import phantom_dicom
from router.cli import cli
from router.ledger.search import Criteria
from router.ledger.store import SqlLedger
from tests.edge.rawpeer import EXPLICIT, RawPeer, associate, command, context, item, p_data, pdu, pdv, store
from tests.peers import HOST, ROOT, StoreScp, dcmsend, success_count, wait_until
from tests.report.made import CR, HEADER, element, encoded
from tests.whole.router_process import CHEST_RULE, EVERYTHING_RULE, RouterProcess, destination

pytestmark = pytest.mark.peer("dcmtk")

#: Keyword -> what is planted; each is looked for, and each of its words.
PLANTED = {
    "PatientName": "Geheim^Gerda",
    "PatientID": "PID-4711-X",
    "PatientBirthDate": "19010203",
    "AccessionNumber": "ACC-0815",
    "StudyDescription": "Verdacht",
    "OtherPatientIDs": "SVNR-1234",
    "ReferringPhysicianName": "Hausarzt^Hugo",
    "PatientComments": "Wohnt-Hinten",
    "InstitutionName": "Klinik-Nirgends",
}
WORDS = sorted({word for value in PLANTED.values() for word in value.split("^")})
WRONG = b"Geheim^Gerda"
FIND = "1.2.840.10008.5.1.4.1.2.1.1"
UID = HEADER["SOPInstanceUID"].decode()


def found(output: str | bytes) -> list[str]:
    """Planted words in it."""
    data = output.encode() if isinstance(output, str) else output
    return [word for word in WORDS if word.encode().lower() in data.lower()]


def radiograph(path: Path, seed: int) -> pydicom.Dataset:
    """One with everything planted."""
    ds = phantom_dicom(seed, rows=256, columns=256)
    for keyword, value in PLANTED.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    return ds


def broken() -> Iterator[tuple[str, bytes]]:
    """(SOP Instance UID, data set): what parsers, decoders and writers of reports fall over, with a name in the very value."""
    planted = {keyword: value.encode() for keyword, value in PLANTED.items() if keyword not in ("OtherPatientIDs",)}
    header = {**HEADER, **planted}
    wrong = {
        "SpecificCharacterSet": WRONG,
        "Modality": WRONG,
        "ViewPosition": WRONG,
        "PhotometricInterpretation": WRONG,
        "InstanceNumber": WRONG,
        "WindowCenter": ("DS", WRONG),
        "PatientBirthDate": ("DA", WRONG),
        "StudyTime": ("TM", WRONG),
        "PatientAge": ("AS", WRONG),
        "Rows": ("DS", WRONG),
        "BitsStored": ("LO", WRONG),
        "StudyInstanceUID": WRONG,
        "StudyID": ("UN", WRONG),
    }
    for number, (keyword, value) in enumerate(wrong.items(), 10):
        uid = f"{UID}.{number}"
        yield uid, encoded({**header, "SOPInstanceUID": uid.encode(), keyword: value})
    yield UID, encoded(header)[:-3]
    yield UID, WRONG * 99
    yield UID, encoded(header) + element(0x00100010, "PN", WRONG)
    yield "Geheim.Gerda", encoded(header)
    yield UID, encoded({**header, "SOPInstanceUID": WRONG})
    pixels = {"Rows": b"\x40\0", "Columns": b"\x40\0", "PixelData": ("OW", WRONG)}
    yield f"{UID}.9", encoded({**header, "SOPInstanceUID": f"{UID}.9".encode(), **pixels})


def hostile(port: int) -> Iterator[bytes]:
    """Bytes on the DICOM port with a name in them."""
    yield WRONG
    yield pdu(1, WRONG)
    yield pdu(0x47, WRONG)
    yield associate(application=WRONG.decode())
    yield associate(context(1, WRONG.decode(), EXPLICIT), context(3, CR, WRONG.decode()))
    identity = item(0x58, b"\x02\x01" + len(WRONG).to_bytes(2, "big") + WRONG + len(WRONG).to_bytes(2, "big") + WRONG)
    yield associate(context(1, CR, EXPLICIT), user=identity) + p_data(pdv(1, 3, WRONG))
    query = command(0x0020, data=True, sop_class=FIND)
    yield associate(context(1, CR, EXPLICIT)) + p_data(pdv(1, 3, query), pdv(1, 2, element(0x00100010, "PN", WRONG)))


def browsed(port: int) -> Iterator[str]:
    """Answers to requests with a name in them by somebody who has not signed in."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    name = urllib.parse.quote(WRONG.decode())
    posted = urllib.parse.urlencode(
        {"query": WRONG.decode(), "name": WRONG.decode(), "password": WRONG.decode()}
    ).encode()
    paths = ("/", "/welcome", f"/{name}", f"/studies/{name}", f"/images/{name}", f"/reports/1?{name}", "/metrics")
    requests = [urllib.request.Request(f"http://{HOST}:{port}{path}") for path in (*paths, "/health/ready")]
    for path in ("/studies", "/failed/requeue", "/health/live"):
        requests.append(urllib.request.Request(f"http://{HOST}:{port}{path}", data=posted))
    requests.append(
        urllib.request.Request(f"http://{HOST}:{port}/", headers={"X-Remote-User": "Geheim", "Cookie": f"a={name}"})
    )
    for request in requests:
        try:
            with opener.open(request, timeout=60) as answer:
                yield f"{answer.headers}{answer.read().decode()}"
        except urllib.error.HTTPError as error:
            yield f"{error.headers}{error.read().decode()}"


@pytest.mark.parametrize("wire", ["fast", "pynetdicom"])
def test_no_output_of_a_node_holds_patient_data_at_debug_level(tmp_path: Path, storescp: StoreScp, wire: str) -> None:
    fast = wire == "fast"  # the other wire is the same behind the port: there only what peers send
    study = radiograph(tmp_path / "0.dcm", 0)
    chest = CHEST_RULE.replace('["sr"]', '["sr", "not-analysed", "heatmap", "pdf"]')
    node = RouterProcess(
        tmp_path / "node",
        destination("pacs", storescp.ae_title, storescp.port),
        rules=(chest, EVERYTHING_RULE) if fast else (EVERYTHING_RULE,),
        classifier='type = "demo"\nprocesses = 1' if fast else "",
        node=f'wire = "{wire}"',
    )
    node.config.write_text(node.config.read_text() + '\n[log]\nlevel = "debug"\n')
    with node:
        assert success_count(dcmsend(node.port, tmp_path / "0.dcm")) == 1
        shown = [*heard(node.port), *browsed(node.web_port)]
        node.settle()
        if fast:
            shown += _crash(node, tmp_path)
        asked = (["queue"], ["trace", str(study.StudyInstanceUID)], ["conformance"], ["check"], ["user", "list"])
        shown += [CliRunner().invoke(cli, [*words, "--config", str(node.config)]).output for words in asked]
        assert not list(Path(f"/proc/{node.pid}/cwd").glob("core*")), "no core dump"
        assert "Max core file size        0 " in Path(f"/proc/{node.pid}/limits").read_text()
        assert node.stop() == 0
    log = node.log.read_text()
    assert "instance.received" in log
    assert "instance.refused" in log
    assert found(log) == []
    assert [one for one in shown if found(one)] == []
    files = [path for path in node.folder.rglob("*") if path.is_file() and path.parent.name != "audit"]
    holders = {path.name for path in files if found(path.read_bytes())}
    assert {name for name in holders if not name.startswith("ledger.db") and len(name) != 28} == set(), "but the spool"


def heard(port: int) -> Iterator[str]:
    """What a peer hears that sends broken data sets and what is no DICOM."""
    for uid, data in broken():
        with RawPeer(port) as peer:
            peer.associated(context(1, CR, EXPLICIT))
            peer.send(store(uid, data, sop_class=CR))
            yield repr(peer.response())
    for raw in hostile(port):
        with RawPeer(port) as peer:
            peer.send(raw)
            peer.socket.shutdown(socket.SHUT_WR)
            while more := peer.socket.recv(65536):
                yield repr(more)


def _crash(node: RouterProcess, folder: Path) -> Iterator[str]:
    """A classify child dies as of a codec's mistake, with faulthandler's dump; so far every line was JSON."""
    radiograph(folder / "1.dcm", 1)
    (started,) = node.events("classify.child_started")
    os.kill(int(started["pid"]), signal.SIGABRT)
    assert success_count(dcmsend(node.port, folder / "1.dcm")) == 1
    wait_until(lambda: '"classify.child_died"' in node.log.read_text(), 60)
    node.settle()
    yield from browsed(node.web_port)


_UNCAUGHT = """
import threading, warnings
from router.observe.log import configure, log_uncaught
configure("debug")
log_uncaught()
def fail():
    raise ValueError("Geheim^Gerda is no number")
class Unraisable:
    def __del__(self):
        fail()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
Unraisable()
warnings.warn("Geheim^Gerda is no date")
fail()
"""


def test_an_exception_that_nobody_catches_says_where_and_not_what() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNCAUGHT], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in said] == ["program.failed"] * 3
    assert all(line["exception"] == "ValueError" and line["where"][-1].endswith(" fail") for line in said)
    assert done.returncode == 1
    assert found(done.stderr + done.stdout) == []


def test_an_error_of_the_database_does_not_quote_what_was_asked(tmp_path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    try:
        with sqlite3.connect(tmp_path / "ledger.db") as connection:
            connection.execute("ALTER TABLE catalogue RENAME TO elsewhere")
        with pytest.raises(DBAPIError) as caught:
            ledger.search.studies(Criteria(patient_id=PLANTED["PatientID"]))
    finally:
        ledger.close()
    assert found(str(caught.value)) == []
