"""The page of the classifiers: what runs, what it said, and whether scores have moved; for everybody who can see, hear or type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from router.classify.trust import FIRST_USE, PINNED
from router.core.drift import Limits
from router.core.findings import Loaded
from router.core.lifecycle import TaskKind
from router.ledger.tallies import day_of
from router.observe import meters
from router.web.app import build_app
from router.web.classifiers import Configured
from router.web.drifts import DriftWatch
from router.web.server import WebServer
from tests.ledger.made import instance, plan
from tests.report.made import prediction
from tests.web import scored
from tests.web.conftest import BOTH, picture, readable
from tests.web.scored import DRIFTING, RARE, STEADY
from tests.web.site import PASSWORD, Site

DEADLINE_MS = 60_000


@dataclass
class Process:
    """A classify process, or the place of one."""

    pid: int | None = None
    loaded: Loaded | None = None


LOADED = Loaded(identity=prediction().classifier, trust=PINNED)


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Five weeks of scores; nobody changes them."""
    site = Site(tmp_path_factory.mktemp("weeks"), users=BOTH)
    scored.fill(site.ledger, site.clock)
    running = Configured(name="cxr", type="xrv", analysts=[Process(4711, LOADED), Process()])
    site.app = build_app(
        replace(site.house, classifiers=[running, Configured(name="new", type="xrv", analysts=[Process()])])
    )
    yield site
    site.close()


@pytest.fixture(scope="module")
def page(weeks: Site) -> str:
    return weeks.signed_in("vera").get("/classifiers").text


def text_of(page: str) -> str:
    """What somebody reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_it_says_which_classifier_runs_where_by_which_weights_and_who_vouches_for_them(page: str) -> None:
    text = text_of(page)
    for said in (
        "cxr ready",
        "densenet121-res224-all",
        "torchxrayvision 1.5.7",
        "c0c0c0c0c0c0…",
        "c0" * 32,
        "yes digest known to the router",
        "1 of up to 2 processes process 4711",
        "new no process ready",
        "nothing loaded yet",
    ):
        assert said in text, said


def test_weights_that_were_taken_at_first_use_are_not_called_verified(make_site: Callable[..., Site]) -> None:
    site = make_site()
    process = Process(1, replace(LOADED, trust=FIRST_USE))
    site.app = build_app(replace(site.house, classifiers=[Configured(name="cxr", type="xrv", analysts=[process])]))
    text = text_of(site.signed_in("vera").get("/classifiers").text)
    assert "no taken as they were at first use" in text
    assert "No image was scored in the last 35 days." in text


def test_it_says_how_many_images_how_quickly_and_what_was_refused_why(page: str, weeks: Site) -> None:
    text = text_of(page)
    pace = weeks.ledger.tallies.pace(["cxr"], since=day_of(weeks.clock.now()), now=weeks.clock.now())["cxr"]
    assert f"{pace.last_hour} in the last hour" in text
    assert re.search(r"From receipt to outcome, 7 days median 0\.\d+ s, 95 % within [1-5](\.\d)? s", text)
    assert re.search(r"lateral a lateral view; the classifier was trained on frontal views only \d+", text)


def test_answers_of_the_process_are_timed_since_the_start() -> None:
    assert meters.answered_within_s("never asked", 0.5) is None
    for seconds in (0.2, 0.2, 0.2, 7.0):
        meters._CLASSIFY.labels("timed").observe(seconds)
    median_s, most_s = (meters.answered_within_s("timed", share) for share in (0.5, 0.95))
    assert median_s is not None
    assert most_s is not None
    assert 0.1 < median_s <= 0.25
    assert 5 < most_s <= 10


def test_the_one_finding_that_moved_is_marked_in_words_with_what_from_what_to_what_and_since_when(page: str) -> None:
    text = text_of(page)
    assert text.count("▲ Drift : the scores of the last 7 days differ") == 1
    marked = re.search(
        r"Effusion from (\w+) \(cxr\): higher, median 0\.2\d → 0\.3\d, present \d % → \d\d %, since about (\S+)", text
    )
    assert marked is not None
    assert marked[1] == DRIFTING
    assert marked[2] in ("2026-02-23", "2026-02-24", "2026-02-25")
    assert "▲ 1 of 6 findings by calling AE title" in text


def test_of_each_calling_ae_title_there_is_a_plot_and_a_table_that_says_the_same(page: str, weeks: Site) -> None:
    for ae_title, verdict in ((DRIFTING, "▲ drift"), (STEADY, "no drift"), (RARE, "too few images")):
        assert f"Effusion from {ae_title} {verdict}" in text_of(page)
    assert page.count('class="days" role="img"') == page.count("<details><summary>As a table") == 3
    (day, *_) = weeks.ledger.tallies.scores(
        "cxr", since=day_of(weeks.clock.now()), finding="Effusion", calling_ae_titles=[STEADY]
    )
    row = f"{day.day} {day.scores.count} {day.scores.quantile(0.1):.2f} {day.scores.quantile(0.5):.2f}"
    assert row in text_of(page)


@pytest.mark.parametrize("days", [35, 90, 365])
def test_finding_ae_title_and_time_are_chosen_by_the_address(weeks: Site, days: int) -> None:
    client = weeks.signed_in("vera")
    query = {"classifier": "cxr", "finding": "Cardiomegaly", "ae_title": STEADY, "days": str(days)}
    page = client.get("/classifiers", params=query).text
    assert page.count('class="days" role="img"') == 1
    assert f"Cardiomegaly from {STEADY} no drift" in text_of(page)
    assert f'viewBox="0 0 {days} 100"' in page
    assert ("Week from" in page) == (days == 365)
    assert "Both windows beside each other" in page


def test_what_is_asked_wrongly_is_answered_by_what_there_is_and_nothing_is_taken_for_markup(weeks: Site) -> None:
    client = weeks.signed_in("vera")
    for query in ({"finding": "<b>"}, {"ae_title": '"><script>'}, {"days": "9" * 30}, {"days": "-1"}):
        answer = client.get("/classifiers", params=query)
        assert answer.status_code == 200
        assert "<script>" not in answer.text
        assert "<b>" not in answer.text
    assert client.get("/classifiers", params={"classifier": "nobody"}).status_code == 404


def test_a_calling_ae_title_is_text_wherever_it_is_shown(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.ledger.accept(instance("1.1", calling_ae_title="<i>&"), plan(classify=("cxr",)))
    (task,) = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    site.ledger.complete(task, outcome=prediction())
    page = site.signed_in("vera").get("/classifiers").text
    assert "&lt;i&gt;&amp;" in page
    assert "<i>" not in page


def test_nothing_of_patients_is_on_it_so_that_no_look_is_audited(weeks: Site) -> None:
    client = weeks.signed_in("vera")
    before = len(weeks.audited())
    assert "P\\1" not in client.get("/classifiers").text
    assert len(weeks.audited()) == before


def test_the_first_page_and_the_metric_hear_of_it(weeks: Site) -> None:
    counts = weeks.house.drifts.counts()
    assert counts == {"cxr": 1}
    weeks.status = replace(weeks.status, drifts=counts)
    client = weeks.signed_in("vera")
    assert "Drift: the scores of classifier cxr have moved (1 finding" in text_of(client.get("/now").text)
    assert 'router_score_drifts{classifier="cxr"} 1.0' in client.get("/metrics").text


def test_a_judgement_is_made_anew_after_five_minutes_and_not_for_each_page(make_site: Callable[..., Site]) -> None:
    site = make_site()
    watch = DriftWatch(site.ledger.tallies, Limits(), now=site.clock.now, now_s=site.seconds)
    assert watch() == {}
    site.ledger.accept(instance("1.1"), plan(classify=("cxr",)))
    (task,) = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    site.ledger.complete(task, outcome=prediction())
    assert watch() == {}
    site.seconds.now += 301
    watch()  # asks for it, and does not wait
    assert len(watch.settled()["cxr"]) == 18


def test_scores_of_other_weights_are_not_compared(make_site: Callable[..., Site]) -> None:
    site = make_site()
    for number, weights in enumerate(["aa"] * 3 + ["bb"] * 2):
        site.ledger.accept(instance(f"1.{number}"), plan(classify=("cxr",)))
        (task,) = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
        site.ledger.complete(task, outcome=prediction(weights=weights * 32))
        site.clock.forward(timedelta(days=5 if number == 2 else 0).total_seconds())
    judged = DriftWatch(site.ledger.tallies, Limits(), now=site.clock.now)()["cxr"]
    assert {one.verdict.recent.count for one in judged} == {2}
    page = site.signed_in("vera").get("/classifiers").text
    assert "Scores from before are not compared." in page
    assert "1 other version in the ledger" in page


@pytest.mark.peer("chromium")
@pytest.mark.parametrize(
    ("name", "scheme", "width"), [("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 360)]
)
def test_plots_are_read_in_light_and_dark_on_a_phone_and_chosen_by_keyboard(
    browser: Any, weeks: Site, name: str, scheme: str, width: int
) -> None:
    server = WebServer(weeks.app, host="127.0.0.1", port=0)
    server.start()
    url = f"http://127.0.0.1:{server.port}"
    context = browser.new_context(base_url=url, viewport={"width": width, "height": 844}, color_scheme=scheme)
    context.set_default_timeout(DEADLINE_MS)
    seen = context.new_page()
    wrong: list[str] = []
    seen.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    seen.goto("/classifiers")
    seen.get_by_label("Name").fill("vera")
    seen.get_by_label("Password").fill(PASSWORD)
    seen.keyboard.press("Enter")
    seen.get_by_role("heading", name=f"Effusion from {DRIFTING}").wait_for()
    picture(seen, f"classifiers-{name}")
    seen.get_by_label("Calling AE title", exact=True).focus()
    seen.keyboard.type(DRIFTING)  # a select takes what is typed; the page follows by itself
    seen.get_by_role("heading", name="Both windows beside each other").wait_for()
    assert f"ae_title={DRIFTING}" in seen.url
    assert seen.evaluate("document.activeElement.id") == "ae_title", "where somebody is stays where it was"
    for summary in seen.get_by_text("As a table").all():
        summary.focus()
        seen.keyboard.press("Enter")
    seen.get_by_role("columnheader", name="28 days before").wait_for()
    readable(seen, f"classifiers-{name}-one")
    assert wrong == []
    context.close()
    server.stop()
