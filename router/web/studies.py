"""Studies: found, listed, and one with all that happened to it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import RedirectResponse, Response

from router.audit import events
from router.ledger.search import TIMELINE_IMAGES_MAX, Criteria, Moment, Search, StudyRow
from router.web.paper import Paper
from router.web.searches import Searches
from router.web.ways import NotFound, Visit

#: Studies of a list: each is a subject of the audit message, too.
_PAGE = 25
_IMAGES_PAGE = 50
_VALUE_LENGTH_MAX = 128
#: Steps of an image's way -> the ledger's words for them. The first is written when the bytes are durable.
_STEPS = (
    ("received and durable", ("received", "received_again", "conflict")),
    ("classified", ("analysed", "not_analysed")),
    ("reported", ("made",)),
    ("delivered", ("delivered", "replaced")),
    ("committed", ("committed",)),
)
_TROUBLE = ("failed", "deferred", "not_committed", "lease_lost", "duplicate", "conflict")


class StudyPages:
    """`/studies`, `/studies/UID`."""

    def __init__(self, *, search: Search, paper: Paper, node: events.Node) -> None:
        self._search = search
        self._paper = paper
        self._node = node
        self._searches = Searches()

    def ask(self, visit: Visit) -> Response:
        """Takes a search and leads to its answer, whose address holds nothing of a patient."""
        assert visit.principal is not None
        criteria = Criteria(
            patient_id=_value(visit, "patient_id"),
            accession_number=_value(visit, "accession_number"),
            uid=_value(visit, "uid"),
            calling_ae_title=_value(visit, "calling_ae_title"),
        )
        if not criteria.words():
            return RedirectResponse("/studies", status_code=303)
        return RedirectResponse(
            f"/studies?search={self._searches.keep(visit.principal.name, criteria)}", status_code=303
        )

    def list(self, visit: Visit) -> Response:
        """Studies, newest first; those of a search, or all."""
        assert visit.principal is not None
        number = visit.query("search")
        kept = self._searches.find(visit.principal.name, number) if number else Criteria()
        criteria = kept or Criteria()
        before_id = number_of(visit.query("before"))
        rows = self._search.studies(criteria, before_id=before_id, limit=_PAGE + 1) if kept is not None else []
        more, rows = len(rows) > _PAGE, rows[:_PAGE]
        if criteria.words():
            visit.record(events.searched(self._node, visit.person, criteria.words()))
        if rows:
            visit.record(events.viewed(self._node, visit.person, [seen_of(row) for row in rows]))
        return self._paper.page(
            "studies.html",
            principal=visit.principal,
            here="studies",
            rows=rows,
            criteria=criteria,
            number=number if kept is not None else "",
            forgotten=kept is None,
            first_page=before_id is None,
            next_id=rows[-1].catalogue_id if more else None,
        )

    def study(self, visit: Visit) -> Response:
        """One study: who it is, what happened to it, its images."""
        uid = str(visit.request.path_params["uid"])
        rows = [row for row in self._search.studies(Criteria(uid=uid), limit=20) if row.study_instance_uid == uid]
        if not rows:
            raise NotFound(f"The ledger knows no study {uid[:_VALUE_LENGTH_MAX]}.")
        visit.record(events.viewed(self._node, visit.person, [seen_of(row) for row in rows]))
        after_id = number_of(visit.query("after")) or 0
        images = self._search.images(uid, after_id=after_id, limit=_IMAGES_PAGE + 1)
        more, images = len(images) > _IMAGES_PAGE, images[:_IMAGES_PAGE]
        timeline = self._search.timeline(uid)
        return self._paper.page(
            "study.html",
            principal=visit.principal,
            here="studies",
            uid=uid,
            rows=rows,
            first=rows[-1],
            steps=steps_of(timeline),
            trouble=[moment for moment in timeline if moment.what in _TROUBLE],
            images=images,
            first_page=not after_id,
            next_id=images[-1].instance_id if more else None,
            timeline_max=TIMELINE_IMAGES_MAX,
            large=rows[0].object_count > TIMELINE_IMAGES_MAX,
        )


def steps_of(timeline: Sequence[Moment]) -> Sequence[tuple[str, Sequence[Moment]]]:
    """(step, what happened in it), every step, also one that has not been reached."""
    return [(name, [moment for moment in timeline if moment.what in words]) for name, words in _STEPS]


def seen_of(row: StudyRow) -> events.Seen:
    """For the audit trail."""
    return events.Seen(
        study_instance_uid=row.study_instance_uid, patient_id=row.patient_id, accession_number=row.accession_number
    )


def number_of(text: str) -> int | None:
    """A row's number in an address; None for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _value(visit: Visit, name: str) -> str:
    return visit.field(name).strip()[:_VALUE_LENGTH_MAX]
