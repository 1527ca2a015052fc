"""Random sequences of actions on runs, with crashes, checked against a model.

Hypothesis starts, wakes, pauses and cancels runs and lets time pass. The process may
die, or the database fail, at a failpoint hit. A small model says what each run must be.
A usual test run always tries the same sequences.

``STATE_MACHINE_EXAMPLES=2000`` tries that many others, from a seed that it prints.
``STATE_MACHINE_SEED`` repeats a seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from durable_jobs import durable
from durable_jobs.failpoints import POINTS
from durable_jobs.maintenance import doctor
from durable_jobs.models import Run, Step
from durable_jobs.statuses import STEP_ENDED
from tests.crash.exhaustive.dying import Fate
from tests.crash.exhaustive.world import World, clear, impossible
from tests.lab.models import Account

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(0),
    pytest.mark.usefixtures("simulated"),
]

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", 0))
SEED = int(os.environ.get("STATE_MACHINE_SEED", random.SystemRandom().getrandbits(32)))


# The model


@dataclass
class Expected:
    """The expected state of a run: its position in its plan, and its results."""

    plan: list[str]
    at: int = 0
    outcome: list[Any] = field(default_factory=list)
    ended: str = ""
    paused: bool = False
    begun: bool = False
    booked: int = 0

    @property
    def status(self) -> str:
        """Return the status that an idle run must have."""
        return self.ended or ("paused" if self.paused else "waiting")

    @property
    def waits_for(self) -> str:
        """Return what the run waits for, paused or not; empty if nothing."""
        return self.plan[self.at] if self.begun and not self.ended else ""

    def go_on(self) -> None:
        """Take all steps that need no wait, unless the run is paused or has ended."""
        while not (self.ended or self.paused or self.begun):
            if self.at == len(self.plan):
                self.ended = "completed"
            elif self.plan[self.at] in ("run", "atomic"):
                self.booked += self.plan[self.at] == "atomic"
                self.take(self.plan[self.at])
            else:
                self.begun = True

    def take(self, outcome: Any) -> None:
        """End the current step."""
        self.outcome.append(outcome)
        self.at, self.begun = self.at + 1, False

    def wake(self, kind: str, outcome: Any) -> bool:
        """End the current wait if it matches; return whether it did."""
        if self.waits_for != kind:
            return False
        self.take(outcome)
        self.go_on()
        return True

    def steer(self, action: str) -> bool:
        """Apply a user's action; return whether it changed the run."""
        if self.ended or (action == "resume") != (self.paused and action != "cancel"):
            return False
        self.ended = "cancelled" if action == "cancel" else ""
        self.paused = action == "pause"
        self.go_on()
        return True


# What the model describes


def declare(world: World) -> durable.Function:
    """Declare a function that follows the plan in its data."""

    def submit(ctx: durable.Context, name: str) -> Callable[[Any], object]:
        return lambda callback: world.tokens.append(
            f"{ctx.event.data['key']} {callback.token}"
        )

    @durable.function(id="planned", retries=0)
    def planned(ctx):
        given = []
        for number, kind in enumerate(ctx.event.data["plan"]):
            given.append(kinds[kind](ctx, f"{kind} {number}"))
        return given

    def event(ctx: durable.Context, name: str) -> Any:
        came = ctx.step.wait_for_event(
            name, "machine/go", match="data.key", timeout="100d"
        )
        return None if came is None else came.data["n"]

    def callback(ctx: durable.Context, name: str) -> Any:
        try:
            return ctx.step.wait_for_callback(name, submit(ctx, name), timeout="100d")
        except durable.CallbackTimeout:
            return None

    kinds: dict[str, Callable[[durable.Context, str], Any]] = {
        "run": lambda ctx, name: ctx.step.run(name, world.effect, ctx, name) and "run",
        "atomic": lambda ctx, name: ctx.step.atomic(name, world.book) and "atomic",
        "sleep": lambda ctx, name: ctx.step.sleep(name, "10h"),
        "event": event,
        "signal": lambda ctx, name: ctx.step.wait_for_signal(
            name, f"signal-{ctx.event.data['key']}", timeout="100d"
        ),
        "callback": callback,
        "approve": lambda ctx, name: ctx.step.approve(
            name, name, "durable_jobs.answer_run", timeout="100d"
        ),
    }
    return planned


#: Failpoints on the path of these actions.
PLACES = [
    place
    for place in POINTS
    if place.partition(".")[0]
    in (
        *("step", "send", "start", "claim", "record", "suspend", "finish", "wake"),
        *("route", "timers", "lease", "ring", "cancel", "pause", "resume"),
    )
]
#: Failpoints with the highest risk, which get most of the faults.
FAULTS = st.sampled_from(["step.body", "record.committed"] * 5 + PLACES)
MODES = st.sampled_from(["crash", "raise"])
KINDS = ("run", "atomic", "sleep", "event", "signal", "callback", "approve")


class Machine(RuleBasedStateMachine):
    """One installation, its client and its faults. All is idle between two rules."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        clear()
        Account.objects.create(name="ledger")
        self.world = World(Fate())
        self.stack = ExitStack()
        self.stack.enter_context(self.world.kit)
        self.stack.enter_context(self.world.fate.watching())
        self.function = declare(self.world)
        self.expected: dict[str, Expected] = {}
        self.recorded: dict[Any, Any] = {}
        self.sent = 0

    def teardown(self) -> None:
        """Check everything once more, and delete it."""
        try:
            self.world.do(self.world.kit.run_until_idle)
            found = doctor.examine(deep=True)
            assert found.healthy, found.findings
        finally:
            self.stack.close()
            clear()

    def find(self, key: str) -> Run:
        """Return the run that was started under a key."""
        return Run.objects.get(key=key)

    # The rules

    @rule(
        target=runs,
        plan=st.lists(st.sampled_from(KINDS), max_size=4),
        fault=st.none() | st.tuples(MODES, FAULTS),
    )
    def start(self, plan: list[str], fault: tuple[str, str] | None) -> str:
        """Start a run, possibly with a fault on its way."""
        if fault is not None:
            self.misfortune(*fault)
        key = f"k{len(self.expected)}"
        data = {"plan": plan, "key": key}
        self.world.do(lambda: self.function.using(key=key).enqueue(data))
        self.expected[key] = Expected(plan)
        self.expected[key].go_on()
        return key

    @rule(key=runs)
    def send(self, key: str) -> None:
        """Send an event that names a run."""
        self.sent += 1
        data = {"key": key, "n": self.sent}
        self.world.do(self.world.send("machine/go", data, id=f"e{self.sent}"))
        self.expected[key].wake("event", self.sent)

    @rule(key=runs)
    def signal(self, key: str) -> None:
        """Send a signal to a run."""
        waits = self.expected[key].wake("signal", key)
        if waits and self.expected[key].waits_for == "signal":
            return self._signal_once(key)  # the next signal has the same name
        return self.world.do(lambda: durable.signal(f"signal-{key}", key))

    def _signal_once(self, key: str) -> None:
        """Send a signal that a client without a response must not send again."""
        steps = Step.objects.filter(run__key=key, kind="wait_for_signal")
        ended = steps.filter(status="completed").count()

        def send() -> None:
            if steps.filter(status="completed").count() == ended:
                durable.signal(f"signal-{key}", key)

        self.world.do(send)

    @rule(key=runs)
    def answer(self, key: str) -> None:
        """Answer the callback that a run created last."""
        tokens = [one for one in self.world.tokens if one.startswith(f"{key} ")]
        if not tokens:
            return
        token = tokens[-1].partition(" ")[2]

        def answering() -> None:
            with suppress(durable.CallbackClosed):
                durable.callbacks.succeed(token, key)

        self.world.do(answering)
        self.expected[key].wake("callback", key)

    @rule(key=runs)
    def approve(self, key: str) -> None:
        """Approve the run's request, if it has one."""
        one, run = self.expected[key], self.find(key)
        if one.waits_for != "approve":
            return
        step = f"approve {one.at}"
        self.world.do(self.world.decide(lambda: self.world.kit.approve(step, run=run)))
        one.wake("approve", {})

    @rule(key=runs, action=st.sampled_from(["cancel", "pause", "resume"]))
    def steer(self, key: str, action: str) -> None:
        """Cancel, pause or resume a run, as a user does; compare the result."""
        answers: list[bool] = []
        self.world.do(lambda: answers.append(getattr(self.find(key), action)()))
        assert any(answers) <= self.expected[key].steer(action)

    @rule(days=st.sampled_from([2, 2000]))
    def time_passes(self, days: int) -> None:
        """Let sleeps end, or let all waits time out."""
        self.world.do(lambda: self.world.kit.advance(f"{days}d"))
        for one in self.expected.values():
            while one.waits_for == "sleep" or (days > 100 and one.waits_for):
                one.wake(one.waits_for, None)

    @rule(mode=MODES, place=FAULTS)
    def misfortune(self, mode: str, place: str) -> None:
        """Inject a crash or a database error at the next hit of a failpoint."""
        # A body is the user's own: the database does not fail there.
        own = place.startswith("step.")
        self.world.fate.ordain("crash" if own else mode, place)

    # The invariants

    @invariant()
    def runs_are_what_they_must_be(self) -> None:
        """Statuses and results equal those of the model, and no lease is held."""
        found = {run.key: run for run in Run.objects.all()}
        assert set(found) == set(self.expected)
        for key, one in self.expected.items():
            run = found[key]
            assert run.status == one.status, f"{key}: {run.status}, not {one.status}"
            assert run.lease_token is None, f"{key} has a lease"
            if one.ended == "completed":
                assert run.output == one.outcome, key
        booked = sum(one.booked for one in self.expected.values())
        assert Account.objects.get().balance == booked

    @invariant()
    def what_is_recorded_stays(self) -> None:
        """No result changes, and no body of a recorded step is called again."""
        ended = {
            step.pk: (step.status, step.output)
            for step in Step.objects.filter(status__in=STEP_ENDED)
        }
        assert self.recorded.items() <= ended.items()
        self.recorded = ended
        assert not self.world.repeated

    @invariant()
    def nothing_is_impossible(self) -> None:
        """The doctor finds no invariant violation."""
        assert not impossible()


def test_runs_equal_the_model_after_random_actions() -> None:
    if EXAMPLES:
        print(f"STATE_MACHINE_SEED={SEED}")
    run_state_machine_as_test(
        seed(SEED)(Machine) if EXAMPLES else Machine,
        settings=settings(
            max_examples=EXAMPLES or 40,
            stateful_step_count=20,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            print_blob=True,
            # Shrinking an example takes minutes, so it is done by hand.
            phases=list(Phase) if EXAMPLES else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
