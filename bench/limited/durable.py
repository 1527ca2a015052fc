"""Functions of five steps: without a limit, with one limit, and with all limits."""

from __future__ import annotations

from typing import Any

from durable_jobs import durable

KEY = "event.data.tenant"


def _five(ctx: durable.Context) -> int:
    for number in range(5):
        ctx.step.run(f"step {number}", lambda: None)
    return 5


def _declared(name: str, **controls: Any) -> durable.Function:
    return durable.function(id=f"bench.limited.{name}", **controls)(_five)


FUNCTIONS = {
    "no limit": _declared("none"),
    "one keyed limit": _declared("one", concurrency=durable.Concurrency(2, key=KEY)),
    "all of them": _declared(
        "all",
        concurrency=[
            durable.Concurrency(2, key=KEY, of="runs"),
            durable.Concurrency(8),
        ],
        throttle=durable.Throttle(100_000, "1s", key=KEY, burst=1000),
        rate_limit=durable.RateLimit(100_000, "1m", key=KEY),
        singleton=durable.Singleton(key="event.data.n", mode="queue"),
        priority="event.data.n % 10",
        idempotency="event.data.once",
    ),
}

#: The function of the fairness figures: a hot tenant among a hundred others.
tenants = _declared(
    "tenants",
    on=durable.Event("bench/tenant"),
    concurrency=[
        durable.Concurrency(5, key=KEY, of="runs"),
        durable.Concurrency(10, of="runs"),
    ],
)
