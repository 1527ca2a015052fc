"""A pytest plugin that switches off one guard: ``-p tests.crash.mutants``.

The environment variable ``MUTANT`` names the guard. Each guard is listed with the test
that must fail without it. A guard that no test needs would be dead code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

RACES = "tests/crash/test_races.py::"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A guard to switch off, and the test that must fail then."""

    apply: Callable[[], None]
    caught_by: str


def _cut(module: ModuleType, name: str, text: str, instead: str = "") -> None:
    """Replace a part of one of our SQL statements."""
    whole = getattr(module, name)
    assert text in whole, f"{name} has no {text!r}"
    _put(module, name, whole.replace(text, instead))


def _put(module: ModuleType, name: str, value: Any) -> Any:
    """Replace an attribute of a module and return the old value."""
    before = getattr(module, name)
    setattr(module, name, value)
    return before


def no_fence() -> None:
    """Let a worker without the lease record for a run."""
    from durable_jobs.store.postgres import record

    _cut(record, "_FENCE", "lease_token = %s::uuid", "%s::uuid IS NOT NULL")


def no_row_lock() -> None:
    """Record by the run's state when the statement began."""
    from durable_jobs.store.postgres import record

    _cut(record, "_FENCE", "FOR NO KEY UPDATE")


def crash_not_counted() -> None:
    """Claim a run without counting the claim as a possible crash."""
    from durable_jobs.store.postgres import claim

    _cut(claim, "_CLAIM", "crash_count = crash_count + 1", "crash_count = crash_count")


def no_look_back() -> None:
    """Commit a wait without checking for earlier events."""
    from durable_jobs.engine.steps import wait

    _put(wait, "_check_after_commit", lambda step, alternatives: None)


def no_check_after_a_crash() -> None:
    """Skip the check that an attempt missed because its worker died."""
    from durable_jobs.maintenance import timers
    from durable_jobs.models import WaitKind
    from durable_jobs.store import waits

    timers._END_ACTIONS[WaitKind.EVENT] = waits.mark_checked


def routed_before_the_commit() -> None:
    """Match an event with waits inside the transaction that sends it."""
    from durable_jobs.events import routing
    from durable_jobs.lifecycle import trigger

    def routed(reached: Any) -> None:
        routing.route_pending()
        start(reached)

    start = _put(trigger, "start_triggered", routed)


def atomic_apart() -> None:
    """Commit the body of an atomic step before its record."""
    from durable_jobs.engine.steps import run
    from durable_jobs.store import steps

    def apart(step: Any, operation: Any, blank: Any) -> Any:
        step_record = blank.but(output=run._call(step, operation))
        return step_record, steps.record(step.state.lease, [step_record])

    _put(run, "_call_and_record", apart)


def commit_is_the_bodys() -> None:
    """Treat a commit whose reply was lost as a failure of the body."""
    from contextlib import nullcontext

    from durable_jobs.engine.steps import run

    _put(run, "engine_writes", nullcontext)


def ended_twice() -> None:
    """End a run regardless of its status."""
    from durable_jobs.statuses import RunStatus
    from durable_jobs.store import runs
    from durable_jobs.store.postgres import finish

    _cut(finish, "_FINISH", " AND status = 'running'")
    _put(runs, "sources", lambda target: [status.value for status in RunStatus])


def keys_not_taken() -> None:
    """Start under a key without claiming the key."""
    from durable_jobs.store import idempotency

    _put(idempotency, "claim_keys", lambda claim_count: {})


def wait_taken_twice() -> None:
    """End a wait that another transaction has already ended."""
    from durable_jobs.store.postgres import wake

    _cut(wake, "_RESOLVE", "JOIN taken", "LEFT JOIN taken")


def slots_of_the_dead() -> None:
    """Keep the slots of a dead worker acquired."""
    from durable_jobs.maintenance import stalled_backlogs
    from durable_jobs.models import Slot
    from durable_jobs.store import limits

    _put(limits, "release_slots", lambda run_ids, *, steps_only=False: 0)
    _put(stalled_backlogs, "lost_slots", lambda: Slot.objects.none())


MUTANTS = {
    "no_fence": Mutant(no_fence, RACES + "test_late_result_is_void"),
    "no_row_lock": Mutant(
        no_row_lock,
        RACES + "test_record_waits_for_a_takeover_that_is_about_to_commit",
    ),
    "crash_not_counted": Mutant(
        crash_not_counted,
        "tests/ending/test_crash_counting.py::test_fifth_crash_fails_the_run_with_a_reason",
    ),
    "no_look_back": Mutant(
        no_look_back,
        "tests/engine/test_wait_for_event.py"
        "::test_consecutive_waits_since_the_run_take_one_event_each",
    ),
    "no_check_after_a_crash": Mutant(
        no_check_after_a_crash,
        "tests/engine/test_trouble.py::test_check_after_commit_of_a_dead_worker_is_made_later",
    ),
    "routed_before_the_commit": Mutant(
        routed_before_the_commit,
        RACES + "test_event_that_commits_after_the_wait_ends_it",
    ),
    "atomic_apart": Mutant(
        atomic_apart,
        "tests/engine/test_atomic.py"
        "::test_atomic_writes_happen_exactly_once_whatever_dies",
    ),
    "commit_is_the_bodys": Mutant(
        commit_is_the_bodys,
        "tests/engine/test_trouble.py"
        "::test_commit_whose_reply_is_lost_is_no_failure_of_an_atomic_step",
    ),
    "ended_twice": Mutant(
        ended_twice,
        RACES + "test_cancel_and_complete_at_the_same_moment_end_a_run_once",
    ),
    "keys_not_taken": Mutant(
        keys_not_taken,
        RACES + "test_key_used_concurrently_starts_one_run",
    ),
    "slots_of_the_dead": Mutant(
        slots_of_the_dead,
        "tests/flow_control/test_concurrency_trouble.py"
        "::test_slot_of_a_dead_worker_is_released_with_its_lease",
    ),
    "wait_taken_twice": Mutant(
        wait_taken_twice, RACES + "test_signal_wakes_one_run_once"
    ),
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Switch the guard off after all imports and before the first test."""
    MUTANTS[os.environ["MUTANT"]].apply()
