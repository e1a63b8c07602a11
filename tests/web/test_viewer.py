"""The radiograph on a page: what is shown, what is said when nothing can be, what is written down, and what it may cost."""

from __future__ import annotations

import gzip
import json
import re
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from router.classify.phantom import phantom_dicom
from router.core.findings import NotAnalysed, Outcome, Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import Produced
from router.errors import ChildDied, ChildNotReady
from router.settings import ViewerSettings
from router.web.app import build_app
from router.web.darkroom import Darkroom, Line, NoPicture
from router.web.kept import Kept
from tests.ledger.made import instance, plan
from tests.report.made import HEADER as HEADER_OF_AN_IMAGE
from tests.report.made import instance_of, prediction, read
from tests.report.seen import build
from tests.web.site import Site
from tests.web.test_pages import PREDICTION
from tests.web.viewed import Mapped

HEADER = {"PatientID": "PID-4711", "AccessionNumber": "ACC-0815", "Modality": "CR", "Rows": "96", "Columns": "80"}


def received(site: Site, folder: Path, outcome: Outcome | None = None, **header: str) -> SopInstance:
    """An image whose file is there, classified with this outcome."""
    image = instance("1.2.3", study_instance_uid="1.2", header={**HEADER, **header})
    site.ledger.accept(image, plan(classify=("cxr",) if outcome else (), deliver=("pacs", "archive")))
    if outcome:
        (task,) = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
        site.ledger.complete(task, outcome=outcome)
    site.files[image.spool_key] = folder / "image.dcm"
    phantom_dicom(1, rows=96, columns=80, bits_stored=12).save_as(folder / "image.dcm", enforce_file_format=True)
    return image


def with_child(site: Site, script: str, **settings: Any) -> Any:
    """A viewer's browser, of a site whose show child is this."""
    darkroom = Darkroom(ViewerSettings(**settings), command=(sys.executable, "-c", script))
    site.app = build_app(replace(site.house, darkroom=darkroom))
    return site.signed_in("vera")


def test_the_browser_gets_numbers_that_it_can_show_and_each_look_is_audited(site: Site, tmp_path: Path) -> None:
    received(site, tmp_path)
    client = site.signed_in("vera")
    assert '<script src="/static/viewer.js" defer>' in client.get("/images/1").text
    before = len(site.audited())
    answer = client.get("/images/1/pixels")
    assert answer.headers["content-encoding"] == "gzip"
    size = struct.unpack_from("<I", answer.content)[0]
    facts = json.loads(answer.content[4 : 4 + size])
    assert (facts["rows"], facts["columns"], facts["frames"], facts["source"]) == (96, 80, 1, "window")
    assert len(answer.content) == 4 + size + facts["levels"] + 2 * 96 * 80
    picture = np.asarray(Image.open(BytesIO(client.get("/images/1/picture?centre=100&width=50&inverted=1").content)))
    assert picture.shape == (96, 80)
    [one, two] = site.audited()[before:]
    for line in (one, two):
        assert 'originalText="DICOM Instances Accessed"' in line
        assert 'UserID="vera"' in line
        assert 'ParticipantObjectID="PID-4711"' in line
        assert 'Instance UID="1.2.3"' in line
    for path in ("pixels", "picture", "heat", "map"):
        assert client.get(f"/images/99/{path}").status_code == 404
    site.audit.close()


@pytest.mark.parametrize("path", ["pixels", "picture", "heat", "map"])
def test_what_cannot_be_audited_is_not_shown(site: Site, tmp_path: Path, path: str) -> None:
    def no_room(message: object) -> None:
        raise OSError(28, "No space left on device")

    received(site, tmp_path, PREDICTION)
    site.mappers["cxr"] = [Mapped(PREDICTION)]
    site.app = build_app(replace(site.house, record=lambda message: None))
    client = site.signed_in("vera")
    site.app = build_app(replace(site.house, record=no_room))
    blind = site.client()
    blind.cookies = client.cookies
    answer = blind.get(f"/images/1/{path}?heat=cxr:Effusion")
    assert answer.status_code == 503
    assert "audit trail cannot be written" in answer.text


CHILDREN = {
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "its decoder crashed (SIGSEGV)",
    "import time; time.sleep(600)": "decoding it took longer than 0.5 s",
    "raise SystemExit(3)": "its decoder ended with exit code 3",
    "print('nonsense')": "its decoder gave an answer that makes no sense",
    "print('[1]')": "its decoder gave an answer that makes no sense",
    "print('{\"byte_count\": 7}'); print('short')": "its decoder gave an answer that makes no sense",
    "print('{\"problem\": \"' + 'why ' * 999 + '\"}')": "why why",
    "import sys\nwhile True: sys.stdout.buffer.write(bytes(2**20))": "its decoder",
}


@pytest.mark.parametrize("script", CHILDREN)
def test_a_child_that_dies_or_lies_over_an_image_is_a_sentence_on_its_page(
    site: Site, tmp_path: Path, script: str
) -> None:
    received(site, tmp_path)
    client = with_child(site, script, time_limit_s=0.5 if "sleep" in script else 60.0)
    answer = client.get("/images/1/pixels")
    assert answer.status_code == 200
    assert answer.json()["problem"].startswith(f"The picture cannot be shown: {CHILDREN[script]}")
    assert len(answer.json()["problem"]) < 400
    if "sleep" not in script:
        page = client.get("/images/1/picture")
        assert page.status_code == 422
        assert CHILDREN[script] in page.text


def _noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 400)


def _bomb(path: Path) -> None:
    """30 million pixels of zeros, deflated to some kilobytes."""
    import pydicom

    ds = pydicom.dcmread(path)
    ds.Rows, ds.Columns, ds.PixelData = 10000, 3000, bytes(2 * 10000 * 3000)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    ("broken", "words"),
    [(_noise, "cannot be"), (_bomb, "memory")],
)
def test_a_hostile_file_is_a_sentence_and_no_error(
    site: Site, tmp_path: Path, broken: Callable[[Path], None], words: str
) -> None:
    image = received(site, tmp_path)
    broken(site.files[image.spool_key])
    settings = ViewerSettings(memory_byte_count_max=100 * 2**20)
    site.app = build_app(replace(site.house, darkroom=Darkroom(settings)))
    client = site.signed_in("vera")
    assert words in client.get("/images/1/pixels").json()["problem"]
    assert client.get("/images/1").status_code == 200


def test_a_second_look_decodes_nothing_and_none_is_left_when_the_file_is_gone(site: Site, tmp_path: Path) -> None:
    image = received(site, tmp_path)
    said = gzip.compress(b"x")
    client = with_child(site, f"open({str(tmp_path / 'asked')!r}, 'a').write('.'); import sys; "
                              f"sys.stdout.buffer.write(b'{{\"byte_count\": {len(said)}}}\\n' + {said!r})")  # fmt: skip
    for path in ("pixels", "pixels", "pixels?frame=2", "pixels?full=1", "pixels?full=1"):
        assert client.get(f"/images/1/{path}").content == b"x"
    assert (tmp_path / "asked").read_text() == "..."
    site.files.pop(image.spool_key).unlink()
    assert client.get("/images/1/pixels").json() == {"problem": "Its bytes are not in the spool any more."}
    assert client.get("/images/1/picture").status_code == 404


def test_what_is_kept_is_bounded_and_forgotten_with_its_file(tmp_path: Path) -> None:
    kept: Kept[str] = Kept(byte_count_max=100, count_max=3)
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.touch()
        kept.put(path, 1, path.name, 30)
        assert kept.get(paths[0], 1) == "0", "asked for, so it stays"
    assert [kept.get(path, 1) for path in paths] == ["0", None, None, "3", "4"]
    kept.put(paths[0], 2, "large", 101)
    assert kept.get(paths[0], 2) is None
    kept.put(paths[1], 1, "90", 90)
    assert [kept.get(path, 1) for path in paths] == [None, "90", None, None, None]
    paths[1].unlink()
    assert kept.get(paths[0], 1) is None
    paths[1].touch()
    assert kept.get(paths[1], 1) is None, "another file with its name"


def test_so_many_at_once_some_wait_and_the_rest_come_again() -> None:
    line = Line(at_once=1, waiters_max=1, wait_s=0.01)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with line.place():
            inside.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)
    with pytest.raises(NoPicture, match="take long"), line.place():
        pass
    full = Line(at_once=1, waiters_max=0)
    with full.place(), pytest.raises(NoPicture, match="too many"), full.place():
        pass
    leave.set()
    holder.join(60)
    with line.place():
        pass


def test_after_retention_the_page_says_when_it_went_and_who_has_the_image(site: Site, tmp_path: Path) -> None:
    image = received(site, tmp_path)
    for target in ("pacs", "archive"):
        (task,) = site.ledger.claim(TaskKind.DELIVER, target, lease_s=60, limit=1)
        site.ledger.complete(task)
    site.files.pop(image.spool_key)
    client = site.signed_in("vera")
    assert "its file is missing, though nothing has freed it" in client.get("/images/1").text
    assert site.ledger.free(retention_s=0) == [image.spool_key]
    page = client.get("/images/1").text
    assert "they were freed on 2026-03-01 12:00:00, spool.retention_s after everything was done" in page
    assert re.search(r"The image is now at (pacs|archive) \(delivered [\d: -]+\), (archive|pacs) \(delivered", page)
    assert "<canvas" not in page


def test_what_has_no_pixels_has_no_viewer(site: Site) -> None:
    site.ledger.accept(instance("5.5", header={"Modality": "SR"}), plan(deliver=("pacs",)))
    assert "Radiograph" not in site.signed_in("vera").get("/images/1").text


def test_a_map_is_shown_with_words_on_what_it_is_and_what_not(site: Site, tmp_path: Path) -> None:
    received(site, tmp_path, PREDICTION)
    mapper = Mapped(PREDICTION)
    site.mappers["cxr"] = [mapper]
    client = site.signed_in("vera")
    page = client.get("/images/1").text
    assert '<option value="cxr:Effusion">Effusion, 0.75 (cxr)</option>' in page
    assert "Pleural Thickening, 0.25" not in page, "only what is present has a map"
    assert "Archives get no heatmap of this image" in page
    assert 'results = ["sr", "heatmap"] does' in page
    assert mapper.asked == 0, "on demand"
    before = len(site.audited())
    piece = client.get("/images/1/heat?heat=cxr:Effusion").text
    for words in ("AI result, not for diagnostic use", "Demonstration", "Effusion", "0.75, threshold 0.50", "densenet, 1", "7 × 7 cells", "not the outline of a disease", 'hx-swap-oob="true"'):  # fmt: skip
        assert words in piece, words
    png = client.get("/images/1/map?heat=cxr%3AEffusion")
    assert Image.open(BytesIO(png.content)).mode == "RGBA"
    assert mapper.asked == 1
    assert len(site.audited()) == before + 2
    whole = client.get("/images/1?heat=cxr:Effusion&centre=7&width=9&inverted=1").text
    assert 'alt="Heatmap of Effusion"' in whole, "without script, too"
    assert 'src="/images/1/picture?centre=7&amp;width=9&amp;inverted=1"' in whole
    cleared = client.get("/images/1/heat?heat=").text
    assert cleared.strip() == '<div id="layer" class="layer" hx-swap-oob="true"></div>'


OTHER_WEIGHTS = replace(PREDICTION, classifier=replace(PREDICTION.classifier, weights_sha256="cd" * 32))


@pytest.mark.parametrize(
    ("mapper", "words"),
    [
        (None, "The classifier cxr is not in this node&#39;s configuration any more."),
        (Mapped(PREDICTION, error=ChildDied("it crashed")), "The classifier did not get through this image: it crashed."),
        (Mapped(PREDICTION, error=ChildNotReady("no weights")), "The process of classifier cxr is not ready: no weights."),
        (Mapped(OTHER_WEIGHTS), "The classifier has changed since this image was analysed"),
        (Mapped(NotAnalysed(code="view", reason="a lateral view")), "does not take this image any more: a lateral view."),
        (Mapped(PREDICTION, not_reported="it does not say where"), "There is no map: it does not say where."),
        (Mapped(replace(PREDICTION, findings=())), "this is none of them"),
    ],
)  # fmt: skip
def test_a_map_that_cannot_be_made_says_why(site: Site, tmp_path: Path, mapper: Mapped | None, words: str) -> None:
    received(site, tmp_path, PREDICTION)
    if mapper is not None:
        site.mappers["cxr"] = [mapper]
    client = site.signed_in("vera")
    answer = client.get("/images/1/heat?heat=cxr:Effusion")
    assert answer.status_code == 200
    assert words in answer.text
    assert client.get("/images/1/map?heat=cxr:Effusion").status_code == 404
    assert "There is no map of such a finding." in client.get("/images/1/heat?heat=cxr:Nodule").text


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (None, "no classifier was asked"),
        (NotAnalysed(code="view", reason="a lateral view"), "the image was not analysed"),
        (replace(PREDICTION, findings=PREDICTION.findings[1:]), "no finding reached its threshold"),
    ],
)
def test_without_a_finding_the_page_says_why_there_is_no_heatmap(
    site: Site, tmp_path: Path, outcome: Prediction | NotAnalysed | None, words: str
) -> None:
    received(site, tmp_path, outcome)
    page = site.signed_in("vera").get("/images/1").text
    assert words in page
    assert "heat-of" not in page


def test_the_heatmap_that_was_sent_can_be_seen_too(site: Site, tmp_path: Path) -> None:
    image = instance("1.2.3", study_instance_uid="1.2", header=HEADER)
    site.ledger.accept(image, plan(classify=("cxr",), deliver=("pacs",)))
    (task,) = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    source, found = read(HEADER_OF_AN_IMAGE), prediction()
    made = build("heatmap", source, found, instance=instance_of(source))
    assert made is not None
    sent = instance("9.9", kind=InstanceKind.HEATMAP, study_instance_uid="1.2", header={"Modality": "OT"})
    site.ledger.complete(task, outcome=found, produced=[Produced(instance=sent, destinations=("pacs",))])
    site.files[sent.spool_key] = tmp_path / "heatmap.dcm"
    site.files[sent.spool_key].write_bytes(made.data)
    client = site.signed_in("vera")
    page = client.get("/images/1").text
    assert '<a href="/images/2/picture">heatmap: see it</a>' in page
    picture = Image.open(BytesIO(client.get("/images/2/picture").content))
    assert (picture.mode, picture.width >= 768) == ("RGB", True)
