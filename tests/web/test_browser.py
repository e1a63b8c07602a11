"""The pages in a real browser: Debian's Chromium, headless. Pictures of what it saw lie in test-artifacts/."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from router.core.findings import NotAnalysed
from router.core.instance import InstanceKind
from router.core.lifecycle import TaskKind
from router.core.notices import FailedTopic, Gathering, Subscription
from router.core.ports import Produced
from router.report.sr import SrBuilder
from router.web.server import WebServer
from router.web.status import Lane
from tests.ledger.made import instance, plan
from tests.report.made import HEADER as HEADER_OF_AN_IMAGE
from tests.report.made import encoded, instance_of, meta, prediction, read
from tests.web.conftest import picture, readable
from tests.web.site import PASSWORD, Site, status
from tests.web.viewed import Mapped, a_radiograph

pytestmark = pytest.mark.peer("chromium")
DEADLINE_MS = 60_000
HEADER = {
    "PatientID": "PID-4711",
    "AccessionNumber": "ACC-0815",
    "Modality": "CR",
    "StudyDescription": "Chest PA and lateral",
    "BodyPartExamined": "CHEST",
    "ViewPosition": "PA",
    "Rows": "2048",
    "Columns": "1536",
}
UP = Lane(kind="deliver", target="pacs", counts={"done": 118}, oldest_age_s=None, breaker="closed")
CLASSIFY = Lane(kind="classify", target="cxr", counts={"leased": 1, "done": 41}, oldest_age_s=2.0)
DOWN = replace(
    UP,
    counts={"retry": 7, "done": 118},
    oldest_age_s=95.0,
    trouble="nothing listens on 10.1.2.9:104: is the destination running, is the port right?",
    down_s=95.0,
    breaker="open",
)


@pytest.fixture
def served(site: Site, tmp_path: Path) -> Iterator[tuple[Site, str]]:
    """A site with a day's work in it, and its address."""
    failures = FailedTopic(gathering=Gathering(first_s=0, again_s=0))
    site.ledger.notices.subscribe([Subscription(name="night-shift", failed=failures)], advise=lambda *_: "")
    for number in range(3):
        header = {**HEADER, "AccessionNumber": f"ACC-08{number + 15}", "PatientID": f"PID-47{number + 11}"}
        image = instance(f"1.2.3.{number}", study_instance_uid=f"1.2.{number}", header=header)
        site.ledger.accept(image, plan(classify=("cxr",), deliver=("pacs", "archive")))
        if not number:
            site.files[image.spool_key] = tmp_path / "radiograph.dcm"
            site.files[image.spool_key].write_bytes(a_radiograph())
    first, second = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=2)
    sr = instance("9.9", kind=InstanceKind.SR, study_instance_uid="1.2.0", header=HEADER)
    site.ledger.complete(
        first, outcome=prediction(demonstration=True), produced=[Produced(instance=sr, destinations=("pacs",))]
    )
    site.ledger.complete(
        second,
        outcome=NotAnalysed(code="lateral_view", reason="a lateral view: the classifier knows frontal ones only"),
    )
    source = read(HEADER_OF_AN_IMAGE)
    site.mappers["cxr"] = [Mapped(prediction(demonstration=True))]
    path = tmp_path / "sr.dcm"
    path.write_bytes(SrBuilder().build(source, instance_of(source), prediction()).data)
    site.files[sr.spool_key] = path
    for task in site.ledger.claim(TaskKind.DELIVER, "archive", lease_s=60, limit=3):
        site.ledger.complete(task)
    refused, taken, *_ = site.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=2)
    site.ledger.defer(refused, error="PACS answered 0x0124: that we are not authorised", at=None)
    site.ledger.complete(taken)
    failed = replace(UP, counts={"done": 118, "failed": 1})
    site.status = status(
        lanes=[CLASSIFY, failed], last_hour={"received": 118, "delivered": 117, "analysed": 41, "failed": 1}
    )
    server = WebServer(site.app, host="127.0.0.1", port=0)
    server.start()
    yield site, f"http://127.0.0.1:{server.port}"
    server.stop()


@pytest.fixture
def page(browser: Any, served: tuple[Site, str]) -> Iterator[Any]:
    """A fresh browser at the first page; what goes wrong in it fails the test."""
    context = browser.new_context(base_url=served[1], viewport={"width": 1280, "height": 900})
    context.set_default_timeout(DEADLINE_MS)
    context.set_default_navigation_timeout(DEADLINE_MS)
    made = context.new_page()
    wrong: list[str] = []
    made.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(served[1]) else None)
    yield made
    context.close()
    # The one that Chromium writes of a wrong password, which is answered 401.
    assert [text for text in wrong if "401 (Unauthorized)" not in text] == []


def shown(page: Any) -> None:
    """Returns when the radiograph is."""
    page.get_by_role("img", name=re.compile("^Radiograph, .* window centre")).wait_for()


def sign_in(page: Any, name: str) -> None:
    page.goto("/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Now").wait_for()


def test_an_operator_signs_in_watches_an_image_arrive_sees_a_destination_go_and_come_back_and_requeues(
    page: Any, served: tuple[Site, str]
) -> None:
    site = served[0]
    page.goto("/studies")
    assert page.url.endswith("/sign-in?next=/studies")
    picture(page, "sign-in")
    page.get_by_label("Name").fill("otto")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("Name or password is wrong").wait_for()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Studies").wait_for()

    page.get_by_role("link", name="Now").click()
    site.ledger.accept(
        instance(
            "7.7.7", study_instance_uid="7.7", header={**HEADER, "AccessionNumber": "A-1"}, calling_ae_title="JUST_NOW"
        ),
        plan(),
    )
    site.status = replace(site.status, lanes=[CLASSIFY, DOWN])
    page.get_by_text("JUST_NOW").wait_for()  # without anybody's doing: the page updates itself
    page.get_by_text("down 1 min 35 s").wait_for()
    page.get_by_text("nothing listens on 10.1.2.9:104").wait_for()
    picture(page, "now-down")
    site.status = replace(site.status, lanes=[CLASSIFY, replace(UP, counts={"done": 125, "failed": 1})])
    page.get_by_text("down 1 min 35 s").wait_for(state="detached")
    picture(page, "now")

    page.get_by_role("navigation").get_by_role("link", name="Studies").click()
    page.get_by_label("Accession number").fill("ACC-0815")
    page.keyboard.press("Enter")
    page.get_by_text("Found, newest first").wait_for()
    assert "ACC-0815" not in page.url
    picture(page, "studies")
    page.get_by_role("table").get_by_role("link").click()
    page.get_by_text("received and durable").wait_for()
    picture(page, "study")
    page.get_by_role("table").get_by_role("link").first.click()
    page.get_by_role("heading", name="Findings · cxr").wait_for()
    assert page.get_by_role("img", name=re.compile(r"^score \d\.\d\d, threshold")).count() == 18
    picture(page, "image")
    page.get_by_role("link", name="sr: read it").click()
    page.get_by_role("heading", name="Imaging Measurement Report").wait_for()
    picture(page, "report")

    page.get_by_role("navigation").get_by_role("link", name="Failed").click()
    page.get_by_text("that we are not authorised").wait_for()
    picture(page, "failed")
    page.get_by_role("button", name="Put back task").click()
    page.get_by_text("1 task put back.").wait_for()
    assert site.ledger.search.failed() == []
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    page.goto("/studies/1.2.0")
    assert "/sign-in" in page.url


@pytest.mark.parametrize(("name", "scheme", "width"), [("dark", "dark", 1280), ("phone", "light", 390)])
def test_pages_fit_the_screen_and_can_be_read_by_everybody_in_light_and_dark_and_on_a_phone(
    page: Any, served: tuple[Site, str], name: str, scheme: str, width: int
) -> None:
    """axe finds nothing serious: contrast, names of controls, structure."""
    served[0].status = replace(served[0].status, lanes=[CLASSIFY, DOWN], problems=["the spool is short"])
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    sign_in(page, "otto")
    for path in ("/", "/studies", "/studies/1.2.0", "/images/1", "/reports/4", "/failed", "/notifications"):
        page.goto(path)
        if path == "/images/1":
            page.get_by_label("Heatmap", exact=True).select_option(index=1)
            page.get_by_role("button", name="Show").click()
            page.get_by_label("Opacity of the heatmap").wait_for()
            shown(page)
        if path == "/reports/4":
            page.get_by_text("Content: relationship").click()
            page.get_by_text("Header: ").click()
        readable(page, f"{name}{path.replace('/', '-')}")


def test_everything_can_be_reached_by_keyboard_and_focus_is_seen(page: Any) -> None:
    sign_in(page, "vera")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim()"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"Now", "Studies", "Failed", "Conflicts", "Rules", "Sign out"} <= reached


def test_without_script_the_pages_work_all_the_same(browser: Any, served: tuple[Site, str]) -> None:
    context = browser.new_context(base_url=served[1], java_script_enabled=False)
    context.set_default_timeout(DEADLINE_MS)
    page = context.new_page()
    sign_in(page, "otto")
    page.goto("/failed")
    page.get_by_role("button", name="Put back task").click()
    page.get_by_text("1 task put back.").wait_for()
    page.goto("/images/1")
    page.get_by_role("textbox", name="Window centre").fill("2000")
    page.get_by_role("textbox", name="Window width").fill("1000")
    page.get_by_role("button", name="Show").first.click()
    page.wait_for_url("**centre=2000&width=1000**", wait_until="load")
    radiograph = page.get_by_role("img", name="Radiograph", exact=True)
    assert radiograph.bounding_box()["height"] > 300, "it has come"
    context.close()


_FILM = "document.querySelector('canvas').toDataURL()"


def film(page: Any) -> np.ndarray:
    """What the canvas shows: grey levels."""
    data = base64.b64decode(page.evaluate(_FILM).partition(",")[2])
    return np.asarray(Image.open(BytesIO(data)).convert("L")).astype(int)


def by_child(site: Site, window: tuple[float, float] | None = None) -> np.ndarray:
    """The same by `classify.display`, in the child."""
    path = next(path for path in site.files.values() if path.name == "radiograph.dcm")
    return np.asarray(Image.open(BytesIO(site.house.darkroom.png(path, 1, window=window)))).astype(int)


def test_the_radiograph_is_windowed_by_keyboard_and_a_heatmap_is_laid_over_it(
    page: Any, served: tuple[Site, str]
) -> None:
    site = served[0]
    sign_in(page, "vera")
    page.goto("/studies/1.2.0")
    before = len(site.audited())
    page.get_by_role("table").get_by_role("link").first.click()
    shown(page)
    looks = [line for line in site.audited()[before:] if 'UserID="vera"' in line and 'ID="PID-4711"' in line]
    assert len(looks) == 2, "the page, and its pixels"
    page.evaluate(f"window.asInFile = {_FILM}")
    assert np.array_equal(film(page), by_child(site))

    page.get_by_role("slider", name="Window width").focus()
    for _ in range(4):
        page.keyboard.press("PageDown")
    page.wait_for_function(f"() => {_FILM} !== window.asInFile")
    assert page.get_by_role("button", name="As in the file").get_attribute("aria-pressed") == "false"
    chosen = {
        name: page.locator(f"#viewer-{name}").evaluate("one => Number(one.value)") for name in ("centre", "width")
    }
    exact = page.locator("canvas").get_attribute("aria-label")
    assert f"width {chosen['width']:g}" in exact, exact
    picture(page, "viewer-window")
    page.get_by_role("slider", name="Window centre").focus()
    page.keyboard.press("PageUp")  # now both are where their sliders are
    chosen = {
        name: page.locator(f"#viewer-{name}").evaluate("one => Number(one.value)") for name in ("centre", "width")
    }
    page.wait_for_function("was => document.querySelector('canvas').ariaLabel !== was", arg=exact)
    wanted = by_child(site, (chosen["centre"], chosen["width"]))
    assert np.abs(film(page) - wanted).max() <= 1, "the window of classify.display"
    for button in ("Invert", "Full range", "Reset"):
        page.get_by_role("button", name=button).focus()
        page.keyboard.press("Enter")
    page.wait_for_function(f"() => {_FILM} === window.asInFile")

    page.get_by_label("Heatmap", exact=True).select_option(index=1)
    page.get_by_role("button", name="Show").focus()
    page.keyboard.press("Enter")
    page.get_by_text("AI result, not for diagnostic use.").wait_for()
    heat = page.get_by_role("img", name=re.compile("^Heatmap of "))
    heat.wait_for()
    page.wait_for_function("() => document.querySelector('#layer img').naturalWidth > 0")
    assert heat.bounding_box() == page.locator("canvas").bounding_box()
    picture(page, "viewer-heatmap")
    page.get_by_label("Opacity of the heatmap").focus()
    page.keyboard.press("Home")
    assert page.evaluate("getComputedStyle(document.getElementById('layer')).opacity") == "0"
    page.get_by_label("Heatmap", exact=True).select_option(label="none")
    page.get_by_role("button", name="Show").click()
    heat.wait_for(state="detached")

    key, path = next((key, path) for key, path in site.files.items() if path.name == "radiograph.dcm")
    site.files[key] = path.with_name("broken.dcm")
    site.files[key].write_bytes(path.read_bytes()[:-4321])
    page.reload()
    page.get_by_text("The picture cannot be shown:").wait_for()
    assert page.locator("canvas").is_hidden()


def test_an_operator_tries_other_rules_with_what_came_before_and_with_a_file_and_takes_the_text_along(
    page: Any, served: tuple[Site, str], tmp_path: Path
) -> None:
    page.emulate_media(color_scheme="dark")
    sign_in(page, "otto")
    page.get_by_role("navigation").get_by_role("link", name="Rules").click()
    field = page.get_by_label("Rules to try")
    wanted = field.input_value().replace('results = ["sr"]', 'results = ["sr", "heatmap"]') + "# mine\n"
    (tmp_path / "chest.dcm").write_bytes(
        meta(sop_instance="1.2.3") + encoded(HEADER_OF_AN_IMAGE | {"SOPInstanceUID": b"1.2.3"})
    )
    page.get_by_label("A DICOM file").set_input_files(tmp_path / "chest.dcm")
    field.fill(wanted.replace("classify", "clasify"))
    page.get_by_role("button", name="Try").press("Enter")
    page.get_by_role("alert").get_by_text("unknown key; did you mean 'classify'?").wait_for()
    readable(page, "dark-rules-mistake")

    field.fill(wanted)
    page.get_by_role("button", name="Try").press("Enter")
    page.get_by_text("1 of 1 instance would be handled differently.").wait_for()  # with the file, which is still chosen
    assert page.get_by_role("alert").count() == 0
    page.get_by_label("A DICOM file").set_input_files([])
    page.get_by_role("button", name="Try").press("Enter")
    page.get_by_text("3 of 3 instances would be handled differently.").wait_for()
    assert page.get_by_text("send result heatmap of cxr to pacs").count() == 3
    page.locator("#outcome summary").first.press("Enter")
    readable(page, "dark-rules")
    page.emulate_media(color_scheme="light")
    picture(page, "rules")
    page.set_viewport_size({"width": 360, "height": 740})
    readable(page, "phone-rules")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the text").click()
    assert Path(download.value.path()).read_text() == wanted

    served[0].users.remove("otto")
    page.get_by_role("button", name="Try").press("Enter")
    page.get_by_text("You are not signed in any more: nothing was done.").wait_for()
    assert field.input_value() == wanted
