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


def evaluate_key(expression: Expression | None, event: ReceivedEvent) -> Any:
    """Return the value of a key for an event; raise ``ExpressionError``."""
    if expression is None:
        return None
    return normalized(_evaluated(expression, event))


def normalized(value: Any) -> Any:
    """Return a key in JSON types, or its digest if it is long.

    Raise ``ExpressionError`` for an invalid key.
    """
    try:
        value = native(value)
        text = key_text(value)
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


def key_text(value: Any) -> str:
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
        name: evaluate_key(key, event)
        for name, key in key_expressions(function).items()
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
        declaration
        for declaration in key_expressions(function)
        if declaration not in held
        and declaration != RATE_LIMIT  # checked by screening
        and (starting or _of_steps(function, declaration))
    ]


def _of_steps(function: Function, declaration: str) -> bool:
    found = keyed_limit(function, {}, declaration)
    return found is not None and found.of_steps


def with_missing_keys(
    function: Function, flow: Flow | None, missing: Iterable[str], event: ReceivedEvent
) -> Flow:
    """Return the keys of a run with those of missing limits added.

    The run was accepted before, so a key that fails becomes null.
    """
    found, known = dict(flow or {}), key_expressions(function)
    for declaration in missing:
        try:
            found[declaration] = evaluate_key(known[declaration], event)
        except ExpressionError as error:
            logger.warning(
                "A key of %s of %s failed: %s", declaration, function.id, error.message
            )
            found[declaration] = None
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


def idempotency_key_of(function: Function, event: ReceivedEvent) -> str | None:
    """Return the key under which an event starts a function once in 24 hours.

    A null value is no key, so such events are no repeats. Raise ``ExpressionError``.
    """
    value = evaluate_key(function.flow_control.idempotency, event)
    return None if value is None else f"idempotency:{digest(key_text(value))}"


@dataclass(frozen=True, slots=True)
class KeyedLimit:
    """A declared limit bound to a key value, with its rule.

    ``declaration`` names the limit among those of its function, as ``Run.flow`` does:
    ``throttle``, or ``concurrency:0`` for the first of several.
    """

    control: str
    declaration: str
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
        source = key if isinstance(key, str) else self.declaration
        of = "" if not isinstance(self.rule, Concurrency) else self.rule.of
        return digest(self.control, of, self.function.id, source, self.text)

    @property
    def limit(self) -> DeclaredLimit | None:
        """The declared limit; None for a rule that allows one live run."""
        rule = self.rule
        return None if rule is None or isinstance(rule, Singleton) else rule.limit

    @property
    def acquired_in_screening(self) -> bool:
        """Return whether screening may have acquired the run's slot here already."""
        return isinstance(self.rule, Singleton)

    @property
    def of_steps(self) -> bool:
        """Return whether a slot here is released whenever the run rests."""
        return isinstance(self.rule, Concurrency) and self.rule.of == "steps"

    def build_row(self) -> Limit:
        """Return the limit's row, not saved."""
        return Limit(
            name=self.name,
            control=self.control,
            function="" if self.shared else self.function.id,
            key="" if self.rule is not None and self.rule.key is None else self.text,
            is_dynamic=callable(self.limit),
            used_at=clock.now(),
        )


def keyed_limit(function: Function, flow: Flow, declaration: str) -> KeyedLimit | None:
    """Return one limit of a run, or None if it is not declared any more."""
    controls, control = function.flow_control, declaration.partition(":")[0]
    rule: Rule = None
    if control == CONCURRENCY:
        index = int(declaration.partition(":")[2])
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
    key = flow.get(declaration)
    shared = isinstance(rule, Concurrency) and rule.scope == "account"
    return KeyedLimit(control, declaration, function, key, key_text(key), rule, shared)


def keyed_limits(function: Function, flow: Flow, *, starting: bool) -> list[KeyedLimit]:
    """Return the limits of a backlog, for new runs or for resumed ones."""
    return list(_keyed_limits(function, flow, starting))


def _keyed_limits(
    function: Function, flow: Flow, starting: bool
) -> Iterator[KeyedLimit]:
    for declaration in flow:
        found = keyed_limit(function, flow, declaration)
        if found is None or found.control == RATE_LIMIT:
            continue  # checked by screening
        if starting or found.of_steps:
            yield found


def has_undeclared_limit(function: Function, flow: Flow, *, starting: bool) -> bool:
    """Return whether a run has a limit that this process does not declare."""
    return any(
        keyed_limit(function, flow, declaration) is None
        for declaration in flow
        if starting or declaration.startswith(CONCURRENCY)
    )


def build_backlog(run: Run, *, starting: bool, moment: datetime) -> Backlog:
    """Return the row of the backlog that a run belongs to, not saved."""
    flow = run.flow or {}
    if starting and ORDERING in flow:
        # One backlog for all other keys: ordering is strict.
        keys = {ORDERING: flow[ORDERING]}
    else:
        keys = {
            declaration: key
            for declaration, key in sorted(flow.items())
            if starting or declaration.startswith(CONCURRENCY)
        }
    name = digest(run.function, run.queue, starting, key_text(keys))
    return Backlog(
        name=name,
        function=run.function,
        queue=run.queue,
        keys=keys,
        for_new_runs=starting,
        eligible_at=moment,
    )
