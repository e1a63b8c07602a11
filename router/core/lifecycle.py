"""Every state a task can be in, and every move between states, is in this file. `docs/lifecycle.md` is drawn from it."""

from __future__ import annotations

from enum import StrEnum


class TaskKind(StrEnum):
    """What is owed."""

    CLASSIFY = "classify"
    DELIVER = "deliver"
    COMMIT = "commit"
    """A destination that has an instance must also promise to keep it (Storage Commitment, we ask)."""
    REPORT = "report"
    """A peer that asked us for storage commitment must hear what we keep (we answer)."""
    SUMMARISE = "summarise"
    """A study whose images one classifier has seen gets one document about all of them, once no more images come."""
    NOTIFY = "notify"
    """People are told of something by webhook or e-mail."""


class TaskState(StrEnum):
    """Where a task stands."""

    READY = "ready"
    """Never tried, or put back by an operator: may be claimed at once."""
    LEASED = "leased"
    """A worker has it until its lease ends."""
    RETRY = "retry"
    """Tried, or owed only later; may be claimed from its `not_before` on."""
    DONE = "done"
    """Nothing is owed any more."""
    FAILED = "failed"
    """Parked with its reason, visible, until an operator puts it back."""


class Event(StrEnum):
    """What can happen to a task."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    DEFER = "defer"
    GIVE_UP = "give_up"
    LEASE_LOST = "lease_lost"
    REQUEUE = "requeue"


TRANSITIONS: dict[tuple[TaskState, Event], TaskState] = {
    (TaskState.READY, Event.CLAIM): TaskState.LEASED,
    (TaskState.RETRY, Event.CLAIM): TaskState.LEASED,
    (TaskState.LEASED, Event.SUCCEED): TaskState.DONE,
    (TaskState.LEASED, Event.DEFER): TaskState.RETRY,
    (TaskState.LEASED, Event.GIVE_UP): TaskState.FAILED,
    (TaskState.LEASED, Event.LEASE_LOST): TaskState.RETRY,
    (TaskState.FAILED, Event.REQUEUE): TaskState.READY,
    (TaskState.RETRY, Event.REQUEUE): TaskState.READY,
}


def after(state: TaskState, event: Event) -> TaskState:
    """The state after `event`. Raises KeyError for a move that is not in the table."""
    return TRANSITIONS[state, event]


#: States from which nothing more happens by itself.
RESTING = frozenset({TaskState.DONE, TaskState.FAILED})
#: States in which work is still owed.
OWED = frozenset({TaskState.READY, TaskState.LEASED, TaskState.RETRY})
