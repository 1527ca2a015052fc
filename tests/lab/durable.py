"""The lab's functions."""

from __future__ import annotations

import os
from datetime import timedelta
from decimal import Decimal

from durable_jobs import durable, remote
from durable_jobs.definitions import operations
from durable_jobs.engine import step_runner
from durable_jobs.serialization import decoding
from tests.lab import chaotic, effects
from tests.lab import limited as with_limits
from tests.lab.effects import add, draw, effect, held, slow

#: Declared when their modules are imported.
CHAOTIC, LIMITED = chaotic.ALL, with_limits.ALL


#: Served only by workers that a test starts for this queue.
served = remote.App(
    "lab", os.environ.get("LAB_ELSEWHERE", "http://127.0.0.1:9/"), timeout="30s"
).function("served", retries=0)


@durable.function(retries=0)
def five_steps(ctx: durable.Context) -> list[str]:
    """Execute five steps."""
    names = ["one", "two", "three", "four", "five"]
    return [ctx.step.run(name, effect, ctx.run_id, name) for name in names]


@durable.function(retries=0)
def gated(ctx: durable.Context) -> str:
    """Take a step, block inside the next one, and book its result."""
    ctx.step.run("one", effect, ctx.run_id, "one")
    ctx.step.run("limit", held, ctx.run_id, ctx.event.data["limit"])
    ctx.step.atomic("book", add, "ledger", 1)
    ctx.step.run("last", effect, ctx.run_id, "last")
    return "done"


@durable.function(retries=0)
def pinned(ctx: durable.Context) -> None:
    """Execute a step on a queue that no function has."""
    ctx.step.run("one", effect, ctx.run_id, "one", queue=ctx.event.data["queue"])


@durable.function(retries=0)
def sleeper(ctx: durable.Context) -> str:
    """Sleep between two steps."""
    ctx.step.run("before", effect, ctx.run_id, "before")
    ctx.step.sleep("nap", timedelta(seconds=ctx.event.data.get("seconds", 2)))
    ctx.step.run("after", effect, ctx.run_id, "after")
    return "rested"


@durable.function(retries=0)
def booker(ctx: durable.Context) -> int:
    """Book five times, each in a transaction with its record."""
    for number in range(5):
        ctx.step.atomic(f"book {number}", add, "ledger", 1)
    return 5


@durable.function(on=durable.Event("lab/ping"), retries=0)
def pinged(ctx: durable.Context) -> str:
    """Return the data of an event."""
    ctx.step.run("ping", effect, ctx.run_id, "ping")
    return "pong"


@durable.function(retries=0)
def endless(ctx: durable.Context) -> int:
    """Execute many short steps."""
    for number in range(400):
        ctx.step.run(f"step {number}", effect, ctx.run_id, f"step {number}")
    return 400


@durable.function(retries=0)
def waiter(ctx: durable.Context) -> str | None:
    """Wait for an event that names this run."""
    event = ctx.step.wait_for_event("go", "lab/go", match="data.key", timeout="5m")
    return None if event is None else str(event.data["from"])


@durable.function(retries=0)
def helper(ctx: durable.Context) -> str:
    """Execute a step for another run."""
    return ctx.step.run("help", slow, ctx.run_id, "help")


@durable.function(retries=0)
def mixed(ctx: durable.Context) -> str:
    """Execute a step of each kind with its own commit, without retries."""
    ctx.step.run("one", slow, ctx.run_id, "one")
    ctx.step.atomic("book", add, "ledger", 1)
    ctx.step.sleep("nap", timedelta(seconds=0.3))
    ctx.step.invoke("help", helper)
    ctx.step.run("last", slow, ctx.run_id, "last")
    return "done"


@durable.function(retries=20, backoff=durable.Backoff.fixed("200ms"))
def patient(ctx: durable.Context) -> dict[str, dict[str, str]]:
    """Execute five slow steps with bookings between them; bodies may fail sometimes."""
    drawn = {}
    for name in (f"step {number}" for number in range(5)):
        drawn[name] = ctx.step.run(name, draw, ctx.run_id, name)
        ctx.step.atomic(f"book after {name}", add, "ledger", 1)
    return {"drawn": drawn}


@durable.function(retries=0)
def poison(ctx: durable.Context) -> str:
    """Execute a step whose body ends its process, in the way that the data names."""
    return ctx.step.run("swallow", effects.die, ctx.run_id, ctx.event.data["how"])


@durable.function(retries=0)
def hanging(ctx: durable.Context) -> str:
    """Execute a step that never ends, and continue after its timeout."""
    try:
        ctx.step.run("hang", effects.hang, ctx.run_id, timeout="500ms")
    except durable.StepTimeout:
        return "went on"
    return "ended"


@durable.function(retries=0)
def unstorable(ctx: durable.Context) -> object:
    """Execute a step whose result cannot be stored."""
    return ctx.step.run("give", effects.unstorable, ctx.run_id)


@durable.function(retries=0)
def many_short_steps(ctx: durable.Context) -> str:
    """Execute many very short steps that take seconds together."""
    for number in range(60):
        ctx.step.run(f"step {number}", effects.slow, ctx.run_id, f"{number}", 0.05)
    return "done"


@durable.function(retries=0)
def hanging_for_the_limit(ctx: durable.Context) -> None:
    """Execute a step that never ends and has no timeout."""
    ctx.step.run("hang", effects.hang, ctx.run_id)


@durable.function(retries=0)
def leaving_open(ctx: durable.Context) -> None:
    """Execute a step whose body leaves a transaction open, as the data says."""
    ctx.step.run("open", effects.leave_open, ctx.run_id, ctx.event.data["how"])


@durable.function(retries=0)
def quick(ctx: durable.Context) -> str:
    """Execute one very short step."""
    return ctx.step.run("one", effect, ctx.run_id, "one")


@durable.function(retries=0)
def pausing_booker(ctx: durable.Context) -> str:
    """Book, and stay inside the transaction for long."""
    ctx.step.atomic("book", effects.book_slowly, "ledger", 1)
    ctx.step.run("last", effect, ctx.run_id, "last")
    return "done"


def _release_1(ctx: durable.Context) -> list[str]:
    one = ctx.step.run("one", effect, ctx.run_id, "one")
    ctx.step.run("taken out", effect, ctx.run_id, "taken out")
    ctx.step.sleep("nap", timedelta(seconds=3))
    return [one]


def _release_2(ctx: durable.Context) -> list[str]:
    inserted = ctx.step.run("inserted", effect, ctx.run_id, "inserted")
    ctx.step.sleep("nap", timedelta(seconds=3))
    one = ctx.step.run("one", effect, ctx.run_id, "one")
    return [inserted, one, ctx.step.run("last", effect, ctx.run_id, "last")]


def _release_wrong(ctx: durable.Context) -> list[str]:
    ctx.step.sleep("one", timedelta(seconds=1))
    return []


@durable.function(retries=0)
def released(ctx: durable.Context) -> list[str]:
    """Execute the code of this process's release."""
    bodies = {"1": _release_1, "2": _release_2, "wrong": _release_wrong}
    return bodies[os.environ["LAB_RELEASE"]](ctx)


if os.environ.get("LAB_RELEASE") != "old":  # an old worker's code lacks the function

    @durable.function(retries=0)
    def newcomer(ctx: durable.Context) -> str:
        """Execute two steps with a sleep between them."""
        ctx.step.run("one", effect, ctx.run_id, "one")
        ctx.step.sleep("rest", "100ms")
        ctx.step.run("two", effect, ctx.run_id, "two")
        return "done"

    def _cancelled(ctx: durable.Context) -> None:
        effect(ctx.event.data["run_id"], "cancelled")

    @durable.function(
        retries=0,
        timeouts=durable.Timeouts(finish="1h"),
        cancel_on=durable.CancelOn("lab/stop", match="data.number"),
        on_cancel=_cancelled,
    )
    def guarded(ctx: durable.Context) -> None:
        """Wait until an event or a timeout cancels the run."""
        ctx.step.run("one", effect, ctx.run_id, "one")
        ctx.step.sleep("rest", "1h")


@durable.function(retries=0)
def exact(ctx: durable.Context) -> str:
    """Execute steps that an old release cannot read: a tag or a kind, by the data."""
    if ctx.event.data["by"] == "tag":
        found = str(ctx.step.run("one", _decimal))
    else:
        found = str(ctx.step.wait_for_signal("one", ctx.run_id, timeout="100ms"))
    ctx.step.sleep("rest", "3s")
    ctx.step.run("two", effect, ctx.run_id, "two")
    return found


def _decimal() -> Decimal:
    return Decimal("1.5")


if os.environ.get("LAB_RELEASE") == "old":  # the old release of the package lacks them
    decoding._READERS.pop("decimal")
    step_runner.KINDS.pop(operations.WaitForSignal)


if "LAB_CRON" in os.environ:  # only on demand: this function starts runs by itself

    @durable.function(on=durable.Cron("* * * * *", catch_up="all"), retries=0)
    def minutely(ctx: durable.Context) -> str:
        """Fire each minute, and catch up on missed times."""
        return str(ctx.event.data["scheduled_at"])
