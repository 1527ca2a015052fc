"""From an event to the runs of the functions that it reaches.

Each function starts once under a name (an event's id, an idempotency key), and where it
gathers events, this one is written to be gathered.
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
    """A function that an event reaches: it starts once under each of ``names``.

    ``gathers``: the event goes with others of this ``key``.
    """

    start: NewRun
    names: tuple[str, ...] = ()
    gathers: bool = False
    key: Any = None

    def controlled(self) -> TriggeredStart:
        """Return how it reaches the function by that one's flow control."""
        made, function = self.start, self.start.function
        controls = function.flow_control
        if controls == NO_CONTROLS or made.skipped:
            return self
        event = event_from_meta(made.event_meta, decode_lenient(made.data))
        names, batch = self.names, controls.batch
        try:
            if controls.idempotency is not None:
                repeat = repeat_key(function, event)
                names = names if repeat is None else (*names, repeat)
            alone = controls.buffering is None or (
                batch is not None
                and batch.condition is not None
                and not condition_holds(batch.condition, event)
            )
            if alone or controls.buffering is None:
                return replace(self, names=names)
            key = value_of(controls.buffering.expression, event)
        except ExpressionError as error:
            # A person must see it: the event is stored, and so is why it did nothing.
            return replace(self, start=replace(made, skipped=failed_key(error)))
        return replace(self, names=names, gathers=True, key=key)

    def claims(self) -> list[idempotency.KeyClaim]:
        """Return the wish for each of its names."""
        function, run_id = self.start.function.id, self.start.id
        return [idempotency.KeyClaim(function, name, run_id) for name in self.names]

    def repeats(self, taken: Mapping[tuple[str, str], uuid.UUID]) -> bool:
        """Tell whether another start has one of its names."""
        places = [(self.start.function.id, name) for name in self.names]
        return any(taken[place] != self.start.id for place in places)


def start_triggered(reached: Sequence[TriggeredStart]) -> None:
    """Start runs, or write events to be gathered, inside the sender's transaction."""
    every = [one.controlled() for one in reached]
    taken = _taken(every)
    wanted = [one for one in every if not one.repeats(taken)]
    start([one.start for one in wanted if not one.gathers])
    several = [one for one in wanted if one.gathers]
    window_rows.insert([event_windows.row(one.start, one.key) for one in several])
    for queue in {one.start.function.queue for one in several}:
        notifier.notify(queue)


def _taken(reached: Sequence[TriggeredStart]) -> dict[tuple[str, str], uuid.UUID]:
    """Take the names of starts, and return which run has which."""
    wishes: dict[tuple[str, str], idempotency.KeyClaim] = {}
    for one in reached:
        for wish in one.claims():
            wishes.setdefault((wish.function, wish.key), wish)
    # In one order, so that two senders of the same names do not wait for each other.
    known = idempotency.claim_keys([wishes[place] for place in sorted(wishes)])
    return {
        place: known[place].run_id if place in known else wish.run_id
        for place, wish in wishes.items()
    }


def condition_holds(condition: Expression, event: ReceivedEvent) -> bool:
    """Evaluate a condition over one event."""
    return condition.test({"event": view(condition, event)})


def view(condition: Expression, event: ReceivedEvent) -> Any:
    """Return an event as an expression wants it: CEL a dict, callables itself."""
    return event.as_dict() if condition.wants_mapping else event.with_own_data()
