"""The page of notifications: what people were told, and what could not be told."""

from __future__ import annotations

from starlette.responses import Response

from router.ledger.notices import NoticeBook
from router.notify.message import headline
from router.web.paper import Paper
from router.web.ways import Visit

_PAGE = 50


class NotificationPage:
    """`/notifications`."""

    def __init__(self, *, notices: NoticeBook, paper: Paper) -> None:
        self._notices = notices
        self._paper = paper

    def list(self, visit: Visit) -> Response:
        """The last messages, the newest first. UIDs and names of the configuration, nothing of patients."""
        rows = [(status, headline(status.notice)) for status in self._notices.newest(limit=_PAGE)]
        return self._paper.page("notifications.html", principal=visit.principal, here="notifications", rows=rows)
