"""The table of states: nothing owed can be forgotten, nothing done can come back."""

from __future__ import annotations

import pytest

from router.core.lifecycle import OWED, RESTING, TRANSITIONS, Event, TaskState, after


def reachable(start: TaskState, *, without: set[Event] = frozenset()) -> set[TaskState]:  # type: ignore[assignment]
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        for (source, event), target in TRANSITIONS.items():
            if source is state and event not in without and target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


def test_every_state_is_either_owed_or_resting() -> None:
    assert set(TaskState) == OWED | RESTING
    assert not OWED & RESTING


def test_every_state_can_be_reached_and_every_event_can_happen() -> None:
    assert reachable(TaskState.READY) == set(TaskState)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_from_every_owed_state_the_work_can_still_be_done() -> None:
    for state in OWED:
        assert TaskState.DONE in reachable(state), state


def test_nothing_leads_out_of_done() -> None:
    assert reachable(TaskState.DONE) == {TaskState.DONE}


def test_out_of_failed_leads_only_an_operator() -> None:
    assert {event for (state, event) in TRANSITIONS if state is TaskState.FAILED} == {Event.REQUEUE}
    assert reachable(TaskState.FAILED, without={Event.REQUEUE}) == {TaskState.FAILED}


def test_only_a_worker_with_a_lease_can_finish_or_fail_a_task() -> None:
    for (state, _), target in TRANSITIONS.items():
        if target in RESTING:
            assert state is TaskState.LEASED


def test_a_leased_task_cannot_be_claimed_again_before_its_lease_is_lost() -> None:
    with pytest.raises(KeyError):
        after(TaskState.LEASED, Event.CLAIM)
    assert after(after(TaskState.LEASED, Event.LEASE_LOST), Event.CLAIM) is TaskState.LEASED


@pytest.mark.parametrize("state", list(TaskState))
@pytest.mark.parametrize("event", list(Event))
def test_a_move_is_in_the_table_or_it_is_an_error(state: TaskState, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(KeyError):
            after(state, event)
