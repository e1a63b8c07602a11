"""Notices in sentences. Nothing of patients: UIDs, AE titles, names of the configuration, findings and their scores."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from router.core.notices import Fact, Notice, NoticeEvent

_NOT_A_DIAGNOSIS = (
    "A score is not a probability of disease. Not a medical device: what a classifier says is no diagnosis."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent."""

    uid: str
    """The same for each copy."""
    subject: str
    """One line."""
    text: str
    data: Mapping[str, Any]
    """The same for machines: the JSON of a webhook. `docs/operating/notifications.md` shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes the messages of one node."""

    ae_title: str
    public_url: str = ""
    """Without it there are no links."""

    def message(self, notice: Notice, *, name: str) -> Message:
        """`name`: of the [notify.NAME] that it goes to."""
        subject = f"{self.ae_title}: {headline(notice)}"
        link = self._link(_PAGES[notice.event](notice))
        items = [self._item(fact) for fact in notice.facts]
        lines = [*_TEXTS[notice.event](notice), ""]
        lines += [_line(item) for item in items if len(item) > 1]
        if notice.fact_count > len(items):
            lines.append(f"and {notice.fact_count - len(items)} more")
        lines += ["", link] if link else []
        return Message(
            uid=notice.uid,
            subject=subject,
            text="\n".join(lines).strip() + "\n",
            data={
                "id": notice.uid,
                "event": notice.event.value,
                "node": self.ae_title,
                "notify": name,
                "at": _at(notice.created_at),
                "about": notice.subject,
                "count": notice.fact_count,
                "subject": subject,
                "text": "\n".join(_TEXTS[notice.event](notice)),
                "items": items,
                **({"link": link} if link else {}),
            },
        )

    def test(self, *, name: str, now: datetime) -> Message:
        """What `router notify --test` sends."""
        notice = Notice(
            uid=f"test-{uuid.uuid4().hex}", event=NoticeEvent.TEST, subject=name, created_at=now, fact_count=0
        )
        return self.message(notice, name=name)

    def _link(self, path: str) -> str:
        return f"{self.public_url}{path}" if self.public_url else ""

    def _item(self, fact: Fact) -> dict[str, Any]:
        of_image = {
            "sop_instance_uid": fact.sop_instance_uid,
            "study_instance_uid": fact.study_instance_uid,
            "calling_ae_title": fact.calling_ae_title,
            "link": self._link(f"/images/{fact.instance_id}") if fact.instance_id is not None else "",
        }
        return {"at": _at(fact.at), **fact.detail, **{key: value for key, value in of_image.items() if value}}


def headline(notice: Notice) -> str:
    """What happened, in one line."""
    return " ".join(_HEADLINES[notice.event](notice).split())


def _first(notice: Notice) -> Mapping[str, Any]:
    return notice.facts[0].detail if notice.facts else {}


def _down(notice: Notice) -> list[str]:
    detail = _first(notice)
    return [
        f"{notice.subject} has not been reached since {detail.get('since', '?')}: {detail.get('reason') or 'no reason known'}.",
        "What is to go there waits and is sent by itself when it answers again; nothing is lost.",
        f"router echo {notice.subject} says more.",
    ]


def _back(what: str) -> Callable[[Notice], list[str]]:
    def text(notice: Notice) -> list[str]:
        detail = _first(notice)
        return [
            f"{what.format(notice.subject)} It lasted from {detail.get('since', '?')} to {detail.get('until', '?')}."
        ]

    return text


def _failed(notice: Notice) -> list[str]:
    advice = dict.fromkeys(fact.detail.get("advice", "") for fact in notice.facts)
    return [
        "They are not tried again by themselves: mend the cause, then put them back (router requeue, or the page of failed tasks).",
        *(line for line in advice if line),
    ]


def _short(notice: Notice) -> list[str]:
    detail = _first(notice)
    return [
        f"{detail.get('free_byte_count', '?')} bytes are free, fewer than {detail.get('free_byte_count_min', '?')}.",
        f"Under {detail.get('refused_under_byte_count', '?')} bytes senders are answered 0xA700 until there is room again.",
    ]


def _found(notice: Notice) -> list[str]:
    lines = [f"Classifier {notice.subject} found what you want to hear of. {_NOT_A_DIAGNOSIS}"]
    if any(fact.detail.get("demonstration") for fact in notice.facts):
        lines.append("This classifier is a demonstration, trained on drawings: what it says has no clinical meaning.")
    return lines


def _headline_of_failed(notice: Notice) -> str:
    return f"{notice.subject}: {notice.fact_count} {'task' if notice.fact_count == 1 else 'tasks'} failed"


def _headline_of_found(notice: Notice) -> str:
    if notice.fact_count != 1 or not notice.facts:
        return f"{notice.fact_count} findings by {notice.subject}"
    detail = _first(notice)
    return f"{detail.get('label', '?')} {detail.get('score', 0):.2f} by {notice.subject}"


def _line(item: Mapping[str, Any]) -> str:
    """One fact, for people."""
    shown = {key: value for key, value in item.items() if key not in _NOT_IN_LINES and value not in ("", False)}
    return "; ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in shown.items())


def _value(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


#: What the sentences have said already.
_NOT_IN_LINES = frozenset(
    {"advice", "reason", "since", "until", "free_byte_count", "free_byte_count_min", "refused_under_byte_count"}
)
_HEADLINES: Mapping[NoticeEvent, Callable[[Notice], str]] = {
    NoticeEvent.DESTINATION_DOWN: lambda notice: f"destination {notice.subject} is down",
    NoticeEvent.DESTINATION_UP: lambda notice: f"destination {notice.subject} is back",
    NoticeEvent.TASK_FAILED: _headline_of_failed,
    NoticeEvent.DISK_SHORT: lambda _: "the disk of the spool is short of room",
    NoticeEvent.DISK_ENOUGH: lambda _: "the disk of the spool has room again",
    NoticeEvent.FINDING: _headline_of_found,
    NoticeEvent.TEST: lambda _: "a test notification",
}
_TEXTS: Mapping[NoticeEvent, Callable[[Notice], list[str]]] = {
    NoticeEvent.DESTINATION_DOWN: _down,
    NoticeEvent.DESTINATION_UP: _back("{} answers again."),
    NoticeEvent.TASK_FAILED: _failed,
    NoticeEvent.DISK_SHORT: _short,
    NoticeEvent.DISK_ENOUGH: _back("There is room on the disk of the spool again."),
    NoticeEvent.FINDING: _found,
    NoticeEvent.TEST: lambda notice: [f"Notifications of [notify.{notice.subject}] arrive here."],
}
_PAGES: Mapping[NoticeEvent, Callable[[Notice], str]] = {
    NoticeEvent.DESTINATION_DOWN: lambda _: "/",
    NoticeEvent.DESTINATION_UP: lambda _: "/",
    NoticeEvent.TASK_FAILED: lambda notice: _failed_page(notice.subject),
    NoticeEvent.DISK_SHORT: lambda _: "/",
    NoticeEvent.DISK_ENOUGH: lambda _: "/",
    NoticeEvent.FINDING: lambda _: "/notifications",
    NoticeEvent.TEST: lambda _: "/notifications",
}


def _failed_page(subject: str) -> str:
    kind, _, target = subject.partition(" ")
    return f"/failed?kind={quote(kind)}&target={quote(target)}"
