"""Functions that wait, one for each kind of wait."""

from __future__ import annotations

from django import forms
from django.db.models import Q

from durable_jobs import durable
from tests.crash.exhaustive.cases import case, ledger
from tests.crash.exhaustive.world import Action, World


@case
def sleep(world: World) -> list[Action]:
    """Sleep between two steps."""

    @durable.function(id="sleeper", retries=0)
    def sleeper(ctx):
        ctx.step.run("before", world.effect, ctx, "before")
        ctx.step.sleep("nap", "1h")
        return ctx.step.run("after", world.effect, ctx, "after")

    return [world.enqueue(sleeper), world.wait("2h")]


@case
def event(world: World) -> list[Action]:
    """Wait for an event that comes, and for one that does not."""

    @durable.function(id="waiter", retries=0)
    def waiter(ctx):
        came = ctx.step.wait_for_event("w", "crash/go", match="data.key", timeout="1d")
        never = ctx.step.wait_for_event("n", "crash/never", timeout="1h")
        return [came.data["n"], never]

    return [
        world.enqueue(waiter, {"key": "k"}),
        world.send("crash/go", {"key": "other", "n": 1}, id="other"),
        world.send("crash/go", {"key": "k", "n": 2}),
        world.wait("2h"),
    ]


@case
def event_of_the_past(world: World) -> list[Action]:
    """Wait for an event that was sent before the wait began."""

    @durable.function(id="late", retries=0)
    def late(ctx):
        ctx.step.sleep("nap", "1h")
        came = ctx.step.wait_for_event("w", "crash/early", since="run", timeout="9d")
        return came.data["n"]

    return [
        world.enqueue(late),
        world.send("crash/early", {"n": 7}),
        world.wait("2h"),
    ]


@case
def event_of_the_past_by_a_callable(world: World) -> list[Action]:
    """Wait for an earlier event with a condition that only the function can check."""

    @durable.function(id="picky", retries=0)
    def picky(ctx):
        ctx.step.sleep("nap", "1h")
        came = ctx.step.wait_for_event(
            "w",
            "crash/early",
            if_=lambda own, event: event.data["n"] == 7,
            since="run",
            timeout="9d",
        )
        return came.data["n"]

    return [
        world.enqueue(picky),
        world.send("crash/early", {"n": 6}, id="six"),
        world.send("crash/early", {"n": 7}, id="seven"),
        world.wait("2h"),
    ]


@case
def signal(world: World) -> list[Action]:
    """Wait for a signal."""

    @durable.function(id="signalled", retries=0)
    def signalled(ctx):
        return ctx.step.wait_for_signal("w", "crash-signal", timeout="1d")

    def send() -> None:
        durable.signal("crash-signal", {"n": 3})

    return [world.enqueue(signalled), send]


@case
def model(world: World) -> list[Action]:
    """Wait for a change of a row, which a client makes once."""

    @durable.function(id="watcher", retries=0)
    def watcher(ctx):
        rich = ctx.step.wait_for_model(
            "w", ledger(), when=Q(balance__gte=5), timeout="1d"
        )
        return rich.balance

    def save() -> None:
        account = ledger()
        if account.balance < 5:
            account.balance = 5
            account.save()

    return [world.enqueue(watcher), save, world.wait("1h")]


@case
def callback(world: World) -> list[Action]:
    """Create a callback and wait for its result."""

    @durable.function(id="asker", retries=0)
    def asker(ctx):
        return ctx.step.wait_for_callback(
            "w", submit=lambda callback: world.tokens.append(callback.token)
        )

    return [world.enqueue(asker), world.answer({"ok": True})]


@case
def approval(world: World) -> list[Action]:
    """Ask for three approvals: one approved, one rejected, one timed out."""

    @durable.function(id="petitioner", retries=0)
    def petitioner(ctx):
        def ask(name, **options):
            return ctx.step.approve(name, name, "durable_jobs.answer_run", **options)

        given = ask("w", form=Amount, timeout="1d")
        try:
            ask("r")
        except durable.ApprovalRejected as rejected:
            return [given, rejected.reason, ask("n", timeout="1h")]
        raise AssertionError("it must be rejected")

    return [
        world.enqueue(petitioner),
        world.decide(lambda: world.kit.approve("w", {"amount": "2.50"})),
        world.decide(lambda: world.kit.reject("r", "no")),
        world.wait("2h"),
    ]


class Amount(forms.Form):
    """An amount."""

    amount = forms.DecimalField()


@case
def condition(world: World) -> list[Action]:
    """Check a condition three times until it is true."""

    @durable.function(id="poller", retries=0)
    def poller(ctx):
        def check(asked):
            return durable.Done(asked) if asked == 2 else asked + 1

        return ctx.step.wait_for_condition("w", check, every="10m", initial=0)

    return [world.enqueue(poller), world.wait("2h")]


@case
def any_of_three(world: World) -> list[Action]:
    """Wait for an event, a signal or a row, whichever comes first."""

    @durable.function(id="anybody", retries=0)
    def anybody(ctx):
        name, value = ctx.step.wait_for_any(
            "w",
            {
                "told": durable.EventWait("crash/told"),
                "signalled": durable.SignalWait("crash-any"),
                "rich": durable.ModelWait(ledger(), Q(balance__gte=5)),
            },
            timeout="1d",
        )
        return [name, value.data]

    return [world.enqueue(anybody), world.send("crash/told", {"n": 1})]
