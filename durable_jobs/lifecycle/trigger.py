"""Start the runs of the functions that an event triggers.

A function starts once per name (an event's id, an idempotency key). If it buffers
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
from durable_jobs.flow_control.keys import repeat_key, value_of
from durable_jobs.lifecycle import event_windows
from durable_jobs.lifecycle.run_event import event_from_meta
from durable_jobs.lifecycle.start import NO_CONTROLS, NewRun, failed_key, start
from durable_jobs.serialization.stored import decode_lenient
from durable_jobs.store import event_windows as window_rows
from durable_jobs.store import idempotency


@dataclass(frozen=True, slots=True)
class TriggeredStart:
    """A function that an event triggers; it starts once under each of ``names``.

    ``gathers``: the event is buffered with others of the same ``key``.
    """

    start: NewRun
    names: tuple[str, ...] = ()
    gathers: bool = False
    key: Any = None

    def controlled(self) -> TriggeredStart:
        """Return the start with the flow control of its function applied."""
        new_run, function = self.start, self.start.function
        controls = function.flow_control
        if controls == NO_CONTROLS or new_run.skipped:
            return self
        event = event_from_meta(new_run.event_meta, decode_lenient(new_run.data))
        names, batch = self.names, controls.batch
        try:
            if controls.idempotency is not None:
                repeat = repeat_key(function, event)
                names = names if repeat is None else (*names, repeat)
            unbuffered = controls.buffering is None or (
                batch is not None
                and batch.condition is not None
                and not condition_holds(batch.condition, event)
            )
            if unbuffered or controls.buffering is None:
                return replace(self, names=names)
            key = value_of(controls.buffering.expression, event)
        except ExpressionError as error:
            # Stored as a skipped run, so that the error is visible.
            return replace(self, start=replace(new_run, skipped=failed_key(error)))
        return replace(self, names=names, gathers=True, key=key)

    def claims(self) -> list[idempotency.KeyClaim]:
        """Return a key claim for each of its idempotency keys."""
        function, run_id = self.start.function.id, self.start.id
        return [idempotency.KeyClaim(function, name, run_id) for name in self.names]

    def repeats(self, taken: Mapping[tuple[str, str], uuid.UUID]) -> bool:
        """Return whether another start has one of the names."""
        keys = [(self.start.function.id, name) for name in self.names]
        return any(taken[name_key] != self.start.id for name_key in keys)


def start_triggered(starts: Sequence[TriggeredStart]) -> None:
    """Start runs, or write events to buffer, in the sender's transaction."""
    controlled = [triggered.controlled() for triggered in starts]
    taken = _claim_names(controlled)
    new = [triggered for triggered in controlled if not triggered.repeats(taken)]
    start([triggered.start for triggered in new if not triggered.gathers])
    buffered = [triggered for triggered in new if triggered.gathers]
    window_rows.insert(
        [event_windows.row(triggered.start, triggered.key) for triggered in buffered]
    )
    for queue in {triggered.start.function.queue for triggered in buffered}:
        notifier.notify(queue)


def _claim_names(starts: Sequence[TriggeredStart]) -> dict[tuple[str, str], uuid.UUID]:
    """Claim the names of starts; return which run holds which name."""
    claims: dict[tuple[str, str], idempotency.KeyClaim] = {}
    for triggered in starts:
        for claim in triggered.claims():
            claims.setdefault((claim.function, claim.key), claim)
    # Sorted, so that two senders of the same names do not deadlock.
    known = idempotency.claim_keys([claims[name_key] for name_key in sorted(claims)])
    return {
        name_key: known[name_key].run_id if name_key in known else claim.run_id
        for name_key, claim in claims.items()
    }


def condition_holds(condition: Expression, event: ReceivedEvent) -> bool:
    """Evaluate a condition over one event."""
    return condition.test({"event": expression_value(condition, event)})


def expression_value(condition: Expression, event: ReceivedEvent) -> Any:
    """Return an event as an expression needs it: a dict for CEL, else the event."""
    return event.as_dict() if condition.wants_mapping else event.with_private_data()
