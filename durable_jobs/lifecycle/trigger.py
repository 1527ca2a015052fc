"""Start the runs of the functions that an event triggers.

A function starts once per key (an event's id, an idempotency key). If it buffers
events, the event is written for its window instead.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from durable_jobs import notifier
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.exceptions import ExpressionError
from durable_jobs.expressions import Expression
from durable_jobs.flow_control.keys import evaluate_key, idempotency_key_of
from durable_jobs.lifecycle import event_windows
from durable_jobs.lifecycle.run_event import event_from_meta
from durable_jobs.lifecycle.start import (
    NO_CONTROLS,
    NewRun,
    reason_of_failed_key,
    start,
)
from durable_jobs.serialization.stored import decode_lenient
from durable_jobs.store import event_windows as window_rows
from durable_jobs.store import idempotency


@dataclass(frozen=True, slots=True)
class TriggeredStart:
    """A function that an event triggers; it starts once under each of ``keys``.

    ``is_buffered``: the event is buffered with others of the same ``buffer_key``.
    """

    start: NewRun
    keys: tuple[str, ...] = ()
    is_buffered: bool = False
    buffer_key: Any = None

    def with_keys(self) -> TriggeredStart:
        """Return the start with the keys of its function's flow control."""
        new_run, function = self.start, self.start.function
        controls = function.flow_control
        if controls == NO_CONTROLS or new_run.skip_reason:
            return self
        event = event_from_meta(new_run.event_meta, decode_lenient(new_run.data))
        keys, batch = self.keys, controls.batch
        try:
            if controls.idempotency is not None:
                repeat = idempotency_key_of(function, event)
                keys = keys if repeat is None else (*keys, repeat)
            unbuffered = controls.buffering is None or (
                batch is not None
                and batch.condition is not None
                and not condition_holds(batch.condition, event)
            )
            if unbuffered or controls.buffering is None:
                return replace(self, keys=keys)
            buffer_key = evaluate_key(controls.buffering.expression, event)
        except ExpressionError as error:
            # Stored as a skipped run, so that the error is visible.
            return replace(
                self, start=replace(new_run, skip_reason=reason_of_failed_key(error))
            )
        return replace(self, keys=keys, is_buffered=True, buffer_key=buffer_key)

    def key_claims(self) -> list[idempotency.KeyClaim]:
        """Return a key claim for each of its idempotency keys."""
        function, run_id = self.start.function.id, self.start.id
        return [idempotency.KeyClaim(function, key, run_id) for key in self.keys]

    def is_repeat(self, taken: Mapping[tuple[str, str], uuid.UUID]) -> bool:
        """Return whether another start has one of the keys."""
        function, run_id = self.start.function.id, self.start.id
        return any(taken[function, key] != run_id for key in self.keys)


def start_triggered(starts: Sequence[TriggeredStart]) -> None:
    """Start runs, or write events to buffer, in the sender's transaction."""
    keyed = [triggered.with_keys() for triggered in starts]
    taken = _claim_keys(keyed)
    new = [triggered for triggered in keyed if not triggered.is_repeat(taken)]
    start([triggered.start for triggered in new if not triggered.is_buffered])
    buffered = [triggered for triggered in new if triggered.is_buffered]
    window_rows.insert(
        [
            event_windows.build_row(triggered.start, triggered.buffer_key)
            for triggered in buffered
        ]
    )
    for queue in {triggered.start.function.queue for triggered in buffered}:
        notifier.notify(queue)


def _claim_keys(starts: Sequence[TriggeredStart]) -> dict[tuple[str, str], uuid.UUID]:
    """Claim the keys of starts; return which run holds which key."""
    claims: dict[tuple[str, str], idempotency.KeyClaim] = {}
    for triggered in starts:
        for claim in triggered.key_claims():
            claims.setdefault((claim.function, claim.key), claim)
    # Sorted, so that two senders of the same keys do not deadlock.
    known = idempotency.claim_keys([claims[pair] for pair in sorted(claims)])
    return {
        pair: known[pair].run_id if pair in known else claim.run_id
        for pair, claim in claims.items()
    }


def condition_holds(condition: Expression, event: ReceivedEvent) -> bool:
    """Evaluate a condition over one event."""
    return condition.test({"event": expression_value(condition, event)})


def expression_value(condition: Expression, event: ReceivedEvent) -> Any:
    """Return an event as an expression needs it: a dict for CEL, else the event."""
    return event.as_dict() if condition.wants_mapping else event.with_private_data()
