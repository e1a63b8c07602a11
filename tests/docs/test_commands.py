"""Every command line of README and quickstart is typed, in the order in which people read them, with an Orthanc and dcmtk.

A new command line is run as it stands. What cannot be is on one of the lists below and in here.py, each with its reason.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from pydicom import dcmread

from router.classify.phantom import phantom_dicom
from router.web.door import FORM_COOKIE, SESSION_COOKIE
from tests.docs.here import PORTS, configured, serves, translate
from tests.docs.reader import Reader, clone, command_lines, table_commands
from tests.peers import HOST, ROOT, listens

pytestmark = [pytest.mark.peer("orthanc", "dcmtk"), pytest.mark.timeout(600)]

READING = ("README.md", "docs/quickstart.md")
STUDY = "1.2.840.113619.2.1"
"""The one that quickstart.md asks about, of image.dcm."""
OTHER_STUDY = "1.2.840.113619.2.2"
"""Of chest.dcm, which is looked at and then forgotten."""
PASSWORD = "correct horse battery"

DEMO = ".venv/bin/router demo --keep"
ORTHANC = "ORTHANC_PASSWORD='choose one' /usr/sbin/Orthanc orthanc.json"

#: Command line -> what is typed for it.
INSTEAD: Mapping[str, str] = {
    # One demo is enough: this one sends all samples and stays. What `make demo` types is looked at below,
    # and tests/whole/test_demo.py gives it files.
    **dict.fromkeys(("make demo", "router demo", "router demo --keep", "router demo path/to/files --keep"), DEMO),
    # Names that stand for something.
    "router trace UID": f"router trace {OTHER_STUDY}",
    "router forget --study UID": f"router forget --study {OTHER_STUDY}",
    "router models show NAME": "router models show densenet121-res224-all",
}
#: Command line -> why it is not run, and what shows that it is right.
NOT_RUN: Mapping[str, str] = {
    "make test": "is what runs this test; its recipe is looked at below",
    "router selftest --chaos": "takes minutes; tests/crash/test_selftest.py runs it",
    "router models fetch NAME": "needs the internet; tests/classify/test_fetch.py fetches from a server of its own",
    "router models import FILE": "needs 28 MB of weights; tests/classify/test_weights.py",
    "router models verify NAME --images FOLDER": "needs weights; tests/classify",
}
#: What is typed when a command asks.
ANSWERS = {"router user add anna --role operator": f"{PASSWORD}\n{PASSWORD}\n"}
#: A virtual environment has programs of these names, too: pynetdicom's. The pages say «another terminal».
DCMTK = ("echoscu", "storescu")
#: What looks at work that must be done first.
NEEDS_REST = ("router reproduce", "router forget")


#: Commands that do not end by themselves -> whether they are at work.
STAYS: Mapping[str, Callable[[str], bool]] = {
    DEMO: lambda printed: "go on running" in printed,
    ORTHANC: lambda _: listens(PORTS["4242"]) and listens(PORTS["8042"]),
    "router serve": serves,
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A person with a clone, some images, and `/usr/sbin/Orthanc` wherever it lies here."""
    folder = tmp_path_factory.mktemp("docs") / "clone"
    clone(folder, copied={"config/router.toml": configured, "orthanc.json": translate})
    for seed, (name, study) in enumerate({"image.dcm": STUDY, "chest.dcm": OTHER_STUDY, "zipped": ""}.items()):
        ds = phantom_dicom(seed, rows=256, columns=256, findings=[True, False, False, False])
        ds.StudyInstanceUID = study or ds.StudyInstanceUID
        ds.save_as(folder / name, enforce_file_format=True)
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        archive.write(folder / "zipped", "DICOM/IM1")
    with Reader(
        folder=folder, translate=translate, instead=INSTEAD, answers=ANSWERS, stays=STAYS, elsewhere=DCMTK
    ) as person:
        yield person


@pytest.fixture(scope="module")
def read(reader: Reader) -> Reader:
    """Everything typed, in order: for each page its blocks, then the commands in its tables."""
    for page in READING:
        for line in (*command_lines(page), *table_commands(page)):
            if line.text in NOT_RUN:
                continue
            if line.text.startswith(NEEDS_REST):
                reader.settle()
            typed = replace(line, text=line.text.replace("reproduce UID", f"reproduce {_report(reader)}"))
            done = reader.type(typed)
            assert done.code == 0, f"{page}: $ {line.text}\n{done.printed[-4000:]}"
            assert reader.shown(typed) == [], f"{page}: $ {line.text} did not print this; it printed\n{done.printed}"
    return reader


def _report(reader: Reader) -> str:
    """SOP Instance UID of the Structured Report on chest.dcm; empty while there is none."""
    uid = str(dcmread(reader.folder / "chest.dcm", stop_before_pixels=True).SOPInstanceUID)
    if not (reader.folder / "var/ledger.db").exists():
        return ""
    status = reader.ask(lambda ledger: ledger.queries.instance_status(uid))
    return next((made.instance.sop_instance_uid for made in status.results), "") if status else ""


def pages_of(port: int, name: str, password: str) -> Callable[[str], str]:
    """A browser of somebody who has signed in: path -> page."""

    def ask(method: str, path: str, body: str = "", **headers: str) -> HTTPResponse:
        connection = HTTPConnection(HOST, port, timeout=60)
        headers |= {"Origin": f"http://{HOST}:{port}", "Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, path, body, headers)
        return connection.getresponse()

    form = urlencode({"name": name, "password": password, "next": "/", "form_token": "one"})
    answer = ask("POST", "/sign-in", form, Cookie=f"{FORM_COOKIE}=one")
    assert answer.status == 303, answer.read()
    session = next(cookie for cookie in answer.msg.get_all("Set-Cookie", []) if cookie.startswith(SESSION_COOKIE))
    return lambda path: ask("GET", path, Cookie=session.partition(";")[0]).read().decode()


def not_inside_make() -> dict[str, str]:
    """The environment without what `make test` tells the programs that it starts."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def test_every_command_line_runs_and_prints_what_the_page_shows(read: Reader) -> None:
    typed = {line.text for page in READING for line in (*command_lines(page), *table_commands(page))}
    assert len(typed) > 30
    listed = {*NOT_RUN, *INSTEAD, *ANSWERS, *STAYS} - {DEMO}
    assert listed - typed == set(), "on a list and on no page"


def test_make_demo_types_router_demo_once_it_is_installed(reader: Reader) -> None:
    planned = subprocess.run(
        ["make", "-n", "demo"],
        cwd=reader.folder,
        env=not_inside_make(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert planned.stdout.split() == DEMO.split()[:2]


def test_the_demo_shows_every_sample_with_its_times_in_80_columns(read: Reader) -> None:
    printed = read.done[DEMO].printed
    assert "Orthanc, http://127.0.0.1:" in printed
    assert "DEMONSTRATION" in printed
    assert "no clinical meaning" in printed
    assert printed.count("identical") + printed.count("equal¹") >= 8
    assert printed.count("+ 1 SR") >= 6
    assert printed.count(" ms") >= 14
    reports = read.folder / "demo-output" / "reports"
    counts = {kind: len(list(reports.glob(f"*.{kind}"))) for kind in ("sr.dcm", "heatmap.dcm", "heatmap.jpg")}
    assert counts["sr.dcm"] >= 6
    assert counts["heatmap.jpg"] == counts["heatmap.dcm"] == printed.count("+ heatmap") >= 5


def test_the_demo_lets_its_user_into_its_dashboard_and_ends_with_ctrl_c(read: Reader) -> None:
    found = re.search(r"Dashboard +http://[\d.]+:(\d+)/ \(user (\S+), password (\S+)\)", read.done[DEMO].printed)
    assert found is not None
    assert "DEMO_CR" in pages_of(int(found[1]), found[2], found[3])("/studies")
    assert read.end(DEMO) == 0


def test_what_the_reader_sent_is_on_the_dashboard_and_in_the_archive(read: Reader) -> None:
    read.settle()
    page = pages_of(PORTS["8080"], "anna", PASSWORD)
    assert STUDY in page("/studies")
    assert OTHER_STUDY not in page("/studies"), "it was forgotten"
    assert "delivered" in page(f"/studies/{STUDY}")
    token = base64.b64encode(b"router:choose one").decode()
    request = Request(f"http://{HOST}:{PORTS['8042']}/instances", headers={"Authorization": f"Basic {token}"})
    with build_opener(ProxyHandler({})).open(request, timeout=60) as answer:
        assert len(json.load(answer)) == 6, "three images and their reports; forgetting reaches no archive"


def test_make_test_runs_the_tests() -> None:
    planned = subprocess.run(
        ["make", "-n", "test"],
        cwd=ROOT,
        env=not_inside_make(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.search(r"python -m pytest .*-n \d", planned.stdout)
    assert "scripts/install-peers.sh" in planned.stdout
