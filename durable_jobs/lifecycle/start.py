"""Start runs: write their rows, subjects and early ends in the caller's transaction."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from durable_jobs import clock, ids, notifier, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.events import CALLED
from durable_jobs.definitions.flow_control import FlowControl
from durable_jobs.definitions.function import Function
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import ExpressionError
from durable_jobs.failpoints import failpoint
from durable_jobs.flow_control.keys import Flow, flow_of, priority_of
from durable_jobs.lifecycle import causation, keyed_starts
from durable_jobs.lifecycle.condition_keys import key_of
from durable_jobs.lifecycle.run_event import build_event_meta, event_from_meta
from durable_jobs.lifecycle.run_subjects import declared_subjects, subjects_of_call
from durable_jobs.lifecycle.schemas import validate_start
from durable_jobs.models import AdmissionState, Run, Subject, Wait, WaitKind
from durable_jobs.serialization.match_keys import match_key
from durable_jobs.serialization.stored import EncodedJSON, decode_lenient
from durable_jobs.signals import announce, run_created
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, runs
from durable_jobs.store.idempotency import KeyClaim

NO_CONTROLS = FlowControl()
logger = logging.getLogger("durable_jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to start. ``data`` is a JSON string."""

    function: Function
    data: str
    event_meta: dict[str, Any]
    due_at: datetime
    id: uuid.UUID = field(default_factory=ids.new_id)
    event_id: str | None = None
    key: str = ""
    parent: Run | None = None
    parent_step: str = ""
    parent_relation: str = ""
    skip_reason: str = ""
    flow: Flow | None = None
    priority: int = 0
    failure_count: int = 0
    #: How many events and runs caused one another before; None: from the parent.
    depth: int | None = None
    subjects: tuple[tuple[str, str], ...] = field(default=())

    def build_row(self) -> Run:
        """Return the row of the run, not saved."""
        now = clock.now()
        depth, event_meta = self._cause()
        return Run(
            id=self.id,
            function=self.function.id,
            version=self.function.version,
            status=RunStatus.SKIPPED if self.skip_reason else RunStatus.QUEUED,
            reason=self.skip_reason,
            ended_at=now if self.skip_reason else None,
            trigger=self.event_meta["name"],
            key=self.key,
            event_id=self.event_id,
            event_meta=event_meta,
            depth=depth,
            data=EncodedJSON(self.data),
            parent_id=self.parent.pk if self.parent else None,
            parent_step=self.parent_step,
            parent_relation=self.parent_relation,
            queue=self.function.queue,
            flow=self.flow,
            backlog=None if self.flow is None else AdmissionState.NEW,
            requeue_to=None if self.flow is None else AdmissionState.NEW,
            due_at=self.due_at,
            run_order=self.due_at - timedelta(seconds=self.priority),
            attempt=self.failure_count,
            queued_at=now,
        )

    def _cause(self) -> tuple[int, dict[str, Any]]:
        """Return the depth of the run, and its event meta with the chain of causes."""
        if self.depth is not None:
            return self.depth, self.event_meta
        if self.parent is not None and self.parent_relation in runs.AGAIN:
            # A rerun has the depth of its parent, or more if code requested it.
            return max(self.parent.depth, causation.depth()), self.event_meta
        by = self.parent or causation.running_run()
        return causation.depth_below(by), causation.with_chain(self.event_meta, by)

    def all_subjects(self) -> list[tuple[str, str]]:
        """Return the instances of the data and those that ``subject=`` names."""
        if not self.function.subjects:
            return list(self.subjects)
        event = event_from_meta(self.event_meta, decode_lenient(self.data))
        declared = declared_subjects(self.function, event)
        return list(dict.fromkeys([*self.subjects, *declared]))

    def with_flow_control(self) -> NewRun:
        """Return the start with the keys and the priority of its flow control.

        Raise ``ExpressionError`` if a key fails.
        """
        function = self.function
        ahead = function.options.priority
        if function.flow_control == NO_CONTROLS:
            return replace(self, priority=ahead) if ahead else self
        event = event_from_meta(self.event_meta, decode_lenient(self.data))
        return replace(
            self,
            flow=flow_of(function, event),
            priority=ahead or priority_of(function, event),
        )


def start(starts: Sequence[NewRun], *, strict: bool = False) -> list[Run]:
    """Insert runs with their waits and subjects, and notify their queues.

    A run whose key fails is skipped with the reason. With ``strict``, raise
    ``ExpressionError`` instead.
    """
    if not starts:
        return []
    failpoint("start.begin", starts[0].function.id)
    return insert(
        [
            one.with_flow_control() if strict else _with_flow_control(one)
            for one in starts
        ]
    )


def insert(starts: Sequence[NewRun]) -> list[Run]:
    """Insert runs whose flow control is applied already."""
    rows = [one.build_row() for one in starts]
    with_more = [(one, run) for one, run in zip(starts, rows, strict=True)]
    early_end_waits = [
        wait
        for one, run in with_more
        if not one.skip_reason
        for wait in early_ends(one.function, run, one.data)
    ]
    subjects = [
        Subject(run_id=run.pk, model=model, object_pk=pk)
        for one, run in with_more
        for model, pk in one.all_subjects()
    ]
    if early_end_waits or subjects:
        with db.join_atomic():
            runs.insert(rows)
            db.rows(Wait).bulk_create(early_end_waits)
            db.rows(Subject).bulk_create(subjects, ignore_conflicts=True)
    else:
        runs.insert(rows)
    db.record_created(run.pk for run in rows)
    failpoint("start.written", starts[0].function.id)
    now = clock.now()
    for queue in {run.queue for run in rows}:
        ready = sum(
            run.queue == queue and run.due_at <= now and not run.ended_at
            for run in rows
        )
        if ready:
            notifier.notify(queue, ready)
    for run in rows:
        announce(run_created, run_id=run.pk, function=run.function, status=run.status)
    return rows


def _with_flow_control(one: NewRun) -> NewRun:
    """Return a start with its flow control, skipped if a key fails."""
    try:
        return one.with_flow_control()
    except ExpressionError as error:
        return replace(one, skip_reason=one.skip_reason or reason_of_failed_key(error))


def reason_of_failed_key(error: ExpressionError) -> str:
    """Return the reason of a run that is skipped because a key failed."""
    return f"A key of its flow control failed: {error.message}"


def early_ends(function: Function, run: Run, data: str) -> list[Wait]:
    """Return the waits that can end a run from outside: ``cancel_on`` and timeouts.

    ``data`` is the data of the run as a JSON string.
    """
    now = clock.now()
    found = []
    for index, cancel in enumerate(function.cancel_on):
        match = ""
        if cancel.match is not None:
            match = match_key(cancel.match, {"data": decode_lenient(data)}) or ""
        elif isinstance(cancel.if_, str):
            match = key_of(cancel.if_, decode_lenient(data))
        found.append(
            Wait(
                kind=WaitKind.CANCEL,
                name=cancel.event,
                match=match,
                condition={"cancel_on": index},
            )
        )
    timeouts = function.timeouts
    if timeouts.start is not None:
        due = max(run.due_at, now) + parse_duration(timeouts.start)
        found.append(Wait(kind=WaitKind.START_BY, due_at=due))
    if timeouts.finish is not None:
        length = parse_duration(timeouts.finish)
        seconds = {"seconds": length.total_seconds()}
        due = max(run.due_at, now) + length
        found.append(Wait(kind=WaitKind.FINISH_BY, due_at=due, condition=seconds))
    for wait in found:
        wait.run_id, wait.created_at = run.pk, now
    return found


def enqueue(function: Function, data: Any) -> Run:
    """Start one run with the caller's data, by the function's own options."""
    return enqueue_once(function, data)[0]


def enqueue_once(function: Function, data: Any) -> tuple[Run, bool]:
    """Enqueue; return the run and whether this call started it.

    Otherwise the run holds the key of the start.
    """
    one = call(function, data)
    claims = claims_of(one, data)
    if not claims:
        return _as_read(start([one], strict=True)[0], one), True
    run, made = start_once(one.with_flow_control(), claims)
    return _as_read(run, one) if made else run, made


def call(
    function: Function, data: Any, *, what: str = "", **parent_relation: Any
) -> NewRun:
    """Return the start of a call, by the function's own options; nothing is written.

    Raise ``PayloadError`` if the data does not match the function's schema.
    """
    causation.check(function.id)
    options, now = function.options, clock.now()
    return NewRun(
        function=function,
        data=payload(function, CALLED, {} if data is None else data, what=what),
        event_meta=build_event_meta(CALLED, now),
        due_at=options.due(now),
        key=options.key or "",
        subjects=subjects_of_call(function, data),
        **parent_relation,
    )


def payload(function: Function, event_name: str, data: Any, *, what: str = "") -> str:
    """Return the data of a start as a JSON string; validate its schema and size."""
    validate_start(function, event_name, data)
    return encode_data(data, what or f"the data of {function.id!r}")


def encode_data(data: Any, what: str) -> str:
    """Return data as a JSON string; raise ``PayloadError`` if it is too large."""
    return serialization.dumps(
        data,
        what=what,
        limit=settings.MAX_EVENT_BYTES,
        limit_setting="MAX_EVENT_BYTES",
    )


def claims_of(one: NewRun, data: Any) -> list[KeyClaim]:
    """Return a claim for each key of a start; ``data`` is the data of the caller.

    Raise ``ExpressionError`` if the function's idempotency key fails.
    """
    function = one.function
    if function.options.key is None and function.flow_control.idempotency is None:
        return []
    event = event_from_meta(one.event_meta, decode_lenient(one.data))
    return keyed_starts.claims_of(function, event, one.id, data)


def start_once(one: NewRun, claims: Sequence[KeyClaim]) -> tuple[Run, bool]:
    """Start a run, or return the run that holds its key; return whether it started.

    The flow control of the start is applied already. Raise ``DuplicateKeyError``.
    """
    with db.join_atomic():
        taken = keyed_starts.claim_keys(claims)
        if taken is None:
            failpoint("start.begin", one.function.id)
            return insert([one])[0], True
    return keyed_starts.holder(taken), False


def first_of_each_key(starts: Sequence[NewRun]) -> list[NewRun]:
    """Claim the idempotency keys of starts; return those whose keys were free.

    A start whose key fails is skipped with the reason.
    """
    found = []
    for one in starts:
        try:
            claims = [] if one.skip_reason else claims_of(one, None)
        except ExpressionError as error:
            found.append(replace(one, skip_reason=reason_of_failed_key(error)))
            continue
        if not claims or keyed_starts.claim_keys(claims) is None:
            found.append(one)
    return found


def _as_read(run: Run, one: NewRun) -> Run:
    """Return a new run as if it came from the database."""
    run.data = decode_lenient(one.data)
    return run
