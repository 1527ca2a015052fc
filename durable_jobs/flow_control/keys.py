"""The keys of a run's flow control, and the limits that they select."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from durable_jobs import clock, serialization
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.flow_control import (
    Concurrency,
    DeclaredLimit,
    RateLimit,
    Singleton,
    Throttle,
)
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.start_options import MAX_PRIORITY
from durable_jobs.exceptions import ExpressionError, PayloadError
from durable_jobs.expressions import Expression
from durable_jobs.models import Backlog, Limit, Run
from durable_jobs.records import UnsupportedValue, native
from durable_jobs.store import db

logger = logging.getLogger("durable_jobs")

#: A key that is longer, as canonical JSON, is replaced by its digest.
LONGEST_KEY = 255

Flow = dict[str, Any]
Rule = Concurrency | Throttle | RateLimit | Singleton | None

ORDERING, SINGLETON, THROTTLE = "ordering", "singleton", "throttle"
RATE_LIMIT, CONCURRENCY = "rate_limit", "concurrency"


def value_of(expression: Expression | None, event: ReceivedEvent) -> Any:
    """Return the value of a key for an event; raise ``ExpressionError``."""
    if expression is None:
        return None
    return normal(_evaluated(expression, event))


def normal(value: Any) -> Any:
    """Return a key in JSON types, or its digest if it is long.

    Raise ``ExpressionError`` for an invalid key.
    """
    try:
        value = native(value)
        text = text_of(value)
    except (UnsupportedValue, PayloadError) as error:
        msg = f"{value!r:.200} can be no key: {error}"
        raise ExpressionError(msg) from error
    return value if len(text) <= LONGEST_KEY else f"sha1:{digest(text)}"


def _evaluated(expression: Expression, event: ReceivedEvent) -> Any:
    if expression.wants_mapping:
        return expression.evaluate({"event": event.as_dict()})
    if not db.connection().in_atomic_block:
        return expression.evaluate({"event": event.with_private_data()})
    # Code of your project may raise an SQL error: the savepoint contains it.
    with db.atomic():
        return expression.evaluate({"event": event.with_private_data()})


def text_of(value: Any) -> str:
    """Return a key as canonical JSON: equal values give equal strings."""
    return serialization.canonical(value, what="a key")


def digest(*parts: object) -> str:
    """Return a name of fixed length, unique for ``parts``."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def flow_of(function: Function, event: ReceivedEvent) -> Flow | None:
    """Return the keys of a new run, or None if the function has no limits."""
    if not function.flow_control.needs_admission:
        return None
    return {
        place: value_of(one, event) for place, one in key_expressions(function).items()
    }


def key_expressions(function: Function) -> dict[str, Expression | None]:
    """Return the key expression of each limit; None for a limit without a key."""
    controls = function.flow_control
    found = {
        f"{CONCURRENCY}:{index}": one.expression
        for index, one in enumerate(controls.concurrency)
    }
    for name, one in (
        (THROTTLE, controls.throttle),
        (RATE_LIMIT, controls.rate_limit),
        (SINGLETON, controls.singleton),
    ):
        if one is not None:
            found[name] = one.expression
    if controls.ordering is not None:
        found[ORDERING] = controls.ordering
    return found


def missing_limits(
    function: Function, flow: Flow | None, *, starting: bool
) -> list[str]:
    """Return the limits that were declared after a run was queued.

    Only those that the run still has to wait for.
    """
    if not function.flow_control.needs_admission:
        return []
    held = flow or {}
    return [
        place
        for place in key_expressions(function)
        if place not in held
        and place != RATE_LIMIT  # checked by screening
        and (starting or _of_steps(function, place))
    ]


def _of_steps(function: Function, place: str) -> bool:
    found = keyed_limit(function, {}, place)
    return found is not None and found.of_steps


def completed(
    function: Function, flow: Flow | None, places: Iterable[str], event: ReceivedEvent
) -> Flow:
    """Return the keys of a run with those of missing limits added.

    The run was accepted before, so a key that fails becomes null.
    """
    found, known = dict(flow or {}), key_expressions(function)
    for place in places:
        try:
            found[place] = value_of(known[place], event)
        except ExpressionError as error:
            logger.warning(
                "A key of %s of %s failed: %s", place, function.id, error.message
            )
            found[place] = None
    return found


def priority_of(function: Function, event: ReceivedEvent) -> int:
    """Return the seconds that a run is placed ahead of others.

    The value is cut to ``MAX_PRIORITY``; an invalid value counts as 0.
    """
    expression = function.flow_control.priority
    if expression is None:
        return 0
    try:
        value = _evaluated(expression, event)
    except ExpressionError as error:
        logger.warning("A priority of %s failed: %s", function.id, error.message)
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        logger.warning(
            "The priority of %s gave %.80r: expected a number.", function.id, value
        )
        return 0
    return round(max(-MAX_PRIORITY, min(MAX_PRIORITY, value)))


def repeat_key(function: Function, event: ReceivedEvent) -> str | None:
    """Return the key under which an event starts a function once in 24 hours.

    A null value is no key, so such events are no repeats. Raise ``ExpressionError``.
    """
    value = value_of(function.flow_control.idempotency, event)
    return None if value is None else f"idempotency:{digest(text_of(value))}"


@dataclass(frozen=True, slots=True)
class KeyedLimit:
    """A declared limit bound to a key value, with its rule."""

    control: str
    place: str
    function: Function
    key: Any
    text: str
    rule: Rule
    shared: bool = False

    @property
    def name(self) -> str:
        """The name of the limit's row."""
        if self.shared and isinstance(self.rule, Concurrency):
            return digest(self.control, self.rule.of, "account", self.text)
        key = None if self.rule is None else self.rule.key
        source = key if isinstance(key, str) else self.place
        of = "" if not isinstance(self.rule, Concurrency) else self.rule.of
        return digest(self.control, of, self.function.id, source, self.text)

    @property
    def limit(self) -> DeclaredLimit | None:
        """The declared limit; None for a rule that allows one live run."""
        rule = self.rule
        return None if rule is None or isinstance(rule, Singleton) else rule.limit

    @property
    def held(self) -> bool:
        """Return whether screening may have acquired the run's slot here already."""
        return isinstance(self.rule, Singleton)

    @property
    def of_steps(self) -> bool:
        """Return whether a slot here is released whenever the run rests."""
        return isinstance(self.rule, Concurrency) and self.rule.of == "steps"

    def limit_row(self) -> Limit:
        """Return the limit's row, not saved."""
        return Limit(
            name=self.name,
            control=self.control,
            function="" if self.shared else self.function.id,
            key="" if self.rule is not None and self.rule.key is None else self.text,
            is_dynamic=callable(self.limit),
            used_at=clock.now(),
        )


def keyed_limit(function: Function, flow: Flow, place: str) -> KeyedLimit | None:
    """Return one limit of a run, or None if it is not declared any more."""
    controls, control = function.flow_control, place.partition(":")[0]
    rule: Rule = None
    if control == CONCURRENCY:
        index = int(place.partition(":")[2])
        if index >= len(controls.concurrency):
            return None
        rule = controls.concurrency[index]
    elif control == ORDERING:
        if controls.ordering is None:
            return None
    else:
        rule = getattr(controls, control)
        if rule is None:
            return None
    key = flow.get(place)
    shared = isinstance(rule, Concurrency) and rule.scope == "account"
    return KeyedLimit(control, place, function, key, text_of(key), rule, shared)


def keyed_limits(function: Function, flow: Flow, *, starting: bool) -> list[KeyedLimit]:
    """Return the limits of a backlog, for new runs or for resumed ones."""
    return list(_keyed_limits(function, flow, starting))


def _keyed_limits(
    function: Function, flow: Flow, starting: bool
) -> Iterator[KeyedLimit]:
    for place in flow:
        found = keyed_limit(function, flow, place)
        if found is None or found.control == RATE_LIMIT:
            continue  # checked by screening
        if starting or found.of_steps:
            yield found


def undeclared(function: Function, flow: Flow, *, starting: bool) -> bool:
    """Return whether a run has a limit that this process does not declare."""
    return any(
        keyed_limit(function, flow, place) is None
        for place in flow
        if starting or place.startswith(CONCURRENCY)
    )


def backlog_of(run: Run, *, starting: bool, moment: datetime) -> Backlog:
    """Return the row of the backlog that a run belongs to, not saved."""
    flow = run.flow or {}
    if starting and ORDERING in flow:
        # One backlog for all other keys: ordering is strict.
        keys = {ORDERING: flow[ORDERING]}
    else:
        keys = {
            place: key
            for place, key in sorted(flow.items())
            if starting or place.startswith(CONCURRENCY)
        }
    name = digest(run.function, run.queue, starting, text_of(keys))
    return Backlog(
        name=name,
        function=run.function,
        queue=run.queue,
        keys=keys,
        for_new_runs=starting,
        eligible_at=moment,
    )
