"""The rules in force, and what edited ones would change. Nothing is saved: whoever likes the result takes the text along."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from starlette.responses import Response

from router.audit import events
from router.core.admission import valid_uid
from router.errors import RefusedError
from router.ledger.search import Search
from router.settings import Settings
from router.settings.editing import EditRefused, edited, rules_text
from router.trial import Trial, try_file, try_past
from router.web.paper import Paper
from router.web.studies import number_of
from router.web.ways import Visit

#: Held in memory twice for a moment. What is larger, `router explain` reads.
FILE_BYTE_COUNT_MAX = 2**26
LAST_MAX, _LAST = 1000, 200
#: Whoever tries rules shares the process with those who send images.
_SECONDS_MAX = 5.0
_VALUE_LENGTH_MAX = 128


class RulePages:
    """`/rules`, `/rules/try`."""

    def __init__(
        self,
        *,
        settings: Settings,
        search: Search,
        spool_path: Callable[[str], Path],
        paper: Paper,
        node: events.Node,
    ) -> None:
        """`spool_path`: where the bytes behind a spool key lie. Raises SpoolDamaged."""
        self._settings = settings
        self._book = settings.rule_book()
        self._text = rules_text(settings)
        self._search = search
        self._spool_path = spool_path
        self._paper = paper
        self._node = node

    def page(self, visit: Visit) -> Response:
        """What is in force; for operators also a field to edit it in."""
        return self._page(visit, text=self._text.text, uid="", last=_LAST, calling_ae_title="")

    def try_them(self, visit: Visit) -> Response:
        """What the edited rules would change: with a file, or with a UID, or with the last instances."""
        text = "\n".join(visit.field("rules").splitlines()) + "\n"
        uid = visit.field("uid").strip()[:_VALUE_LENGTH_MAX]
        calling_ae_title = visit.field("calling_ae_title").strip()[:_VALUE_LENGTH_MAX]
        last = min(max(number_of(visit.field("last")) or _LAST, 1), LAST_MAX)
        filled_in = {"text": text, "uid": uid, "last": last, "calling_ae_title": calling_ae_title}
        try:
            other = edited(self._settings, text)
        except EditRefused as error:
            return self._page(visit, problems=error.found, **filled_in)
        try:
            trial = self._try(visit.files.get("file", b""), other, uid, last, calling_ae_title)
        except RefusedError as error:
            return self._page(visit, file_problem=str(error), **filled_in)
        if trial.tried:
            seen = events.seen_of(one.instance for one in trial.tried)
            visit.record(events.viewed(self._node, visit.person, seen))
        return self._page(visit, trial=trial, same=other.rule_book() == self._book, **filled_in)

    def _try(self, file: bytes, other: Settings, uid: str, last: int, calling_ae_title: str) -> Trial:
        """Raises RefusedError for a file or a UID that is none."""
        if file:
            open_file = partial(BytesIO, file)
            return Trial(tried=(try_file(open_file, self._settings, other, calling_ae_title=calling_ae_title),))
        if uid and not valid_uid(uid):
            raise RefusedError("not a UID: digits and dots, at most 64 characters", status=0)
        return try_past(
            self._search.originals(uid=uid, limit=LAST_MAX if uid else last),
            now=self._book,
            edited=other.rule_book(),
            spool_path=self._spool_path,
            seconds_max=_SECONDS_MAX,
        )

    def _page(self, visit: Visit, **values: Any) -> Response:
        """The whole page, or only what was asked for where the page asks by itself."""
        piece = visit.request.method == "POST" and visit.request.headers.get("hx-request") == "true"
        shown: dict[str, Any] = {"problems": (), "file_problem": "", "trial": None, "same": False, **values}
        return self._paper.page(
            "rules_piece.html" if piece else "rules.html",
            principal=visit.principal,
            here="rules",
            piece=piece,
            rules=list(zip(self._settings.rules, self._text.lines or [0] * len(self._settings.rules), strict=True)),
            default_deliver=self._settings.default_deliver,
            file=self._settings.file,
            file_changed=self._file_changed(),
            last_max=LAST_MAX,
            file_byte_count_max=FILE_BYTE_COUNT_MAX,
            **shown,
        )

    def _file_changed(self) -> bool:
        """Whether the configuration file is another one than the node has read."""
        file = self._settings.file
        if file is None:
            return False
        try:
            return file.path.read_text(encoding="utf-8") != file.text
        except (OSError, UnicodeDecodeError):
            return True
