"""Whatever is done to runs, in whatever order, and whatever dies meanwhile.

Hypothesis starts runs, wakes them, steers them, lets time pass, and lets the process
die or the database fail at some hit of a failpoint; a small model says what each run
must be. Always the same in a usual test run; ``STATE_MACHINE_EXAMPLES=2000`` tries as
many others, by a seed that it prints (``STATE_MACHINE_SEED`` takes it again).
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
    """What a run must be: where it is in its plan, and what came of it so far."""

    plan: list[str]
    at: int = 0
    outcome: list[Any] = field(default_factory=list)
    ended: str = ""
    paused: bool = False
    begun: bool = False
    booked: int = 0

    @property
    def status(self) -> str:
        """Return the status that the run must have, at rest."""
        return self.ended or ("paused" if self.paused else "waiting")

    @property
    def waits_for(self) -> str:
        """Return what it waits for, paused or not; empty when for nothing."""
        return self.plan[self.at] if self.begun and not self.ended else ""

    def go_on(self) -> None:
        """Take the steps that wait for nothing, unless it is paused or over."""
        while not (self.ended or self.paused or self.begun):
            if self.at == len(self.plan):
                self.ended = "completed"
            elif self.plan[self.at] in ("run", "atomic"):
                self.booked += self.plan[self.at] == "atomic"
                self.take(self.plan[self.at])
            else:
                self.begun = True

    def take(self, outcome: Any) -> None:
        """End the step that it is at."""
        self.outcome.append(outcome)
        self.at, self.begun = self.at + 1, False

    def wake(self, kind: str, outcome: Any) -> bool:
        """End what it waits for, if it waits for that; tell whether it did."""
        if self.waits_for != kind:
            return False
        self.take(outcome)
        self.go_on()
        return True

    def steer(self, action: str) -> bool:
        """Do what a person does; tell whether that changed it."""
        if self.ended or (action == "resume") != (self.paused and action != "cancel"):
            return False
        self.ended = "cancelled" if action == "cancel" else ""
        self.paused = action == "pause"
        self.go_on()
        return True


# What the model is a model of


def declare(world: World) -> durable.Function:
    """Declare a function that does what its data says."""

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


#: What is done to a run here passes these.
PLACES = [
    place
    for place in POINTS
    if place.partition(".")[0]
    in (
        *("step", "send", "start", "claim", "record", "suspend", "finish", "wake"),
        *("route", "timers", "lease", "ring", "cancel", "pause", "resume"),
    )
]
#: Where most is at stake is where it strikes most often.
FAULTS = st.sampled_from(["step.body", "record.committed"] * 5 + PLACES)
MODES = st.sampled_from(["crash", "raise"])
KINDS = ("run", "atomic", "sleep", "event", "signal", "callback", "approve")


class Machine(RuleBasedStateMachine):
    """One installation, its client and its misfortunes. All rests between rules."""

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
        """Look once more at all that is there, and leave nothing of it."""
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

    # What is done

    @rule(
        target=runs,
        plan=st.lists(st.sampled_from(KINDS), max_size=4),
        fault=st.none() | st.tuples(MODES, FAULTS),
    )
    def start(self, plan: list[str], fault: tuple[str, str] | None) -> str:
        """Start a run, and have a misfortune on its way or not."""
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
            return self._signal_once(key)  # the next one has the same name
        return self.world.do(lambda: durable.signal(f"signal-{key}", key))

    def _signal_once(self, key: str) -> None:
        """Send a signal that must not be sent again by a client without an answer."""
        steps = Step.objects.filter(run__key=key, kind="wait_for_signal")
        ended = steps.filter(status="completed").count()

        def send() -> None:
            if steps.filter(status="completed").count() == ended:
                durable.signal(f"signal-{key}", key)

        self.world.do(send)

    @rule(key=runs)
    def answer(self, key: str) -> None:
        """Answer the callback that a run gave out last."""
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
        """Approve what a run asks, if it asks."""
        one, run = self.expected[key], self.find(key)
        if one.waits_for != "approve":
            return
        step = f"approve {one.at}"
        self.world.do(self.world.decide(lambda: self.world.kit.approve(step, run=run)))
        one.wake("approve", {})

    @rule(key=runs, action=st.sampled_from(["cancel", "pause", "resume"]))
    def steer(self, key: str, action: str) -> None:
        """Cancel, pause or resume a run, as a person does; both learn what came."""
        answers: list[bool] = []
        self.world.do(lambda: answers.append(getattr(self.find(key), action)()))
        assert any(answers) <= self.expected[key].steer(action)

    @rule(days=st.sampled_from([2, 2000]))
    def time_passes(self, days: int) -> None:
        """Let sleeps end, or all that waits time out."""
        self.world.do(lambda: self.world.kit.advance(f"{days}d"))
        for one in self.expected.values():
            while one.waits_for == "sleep" or (days > 100 and one.waits_for):
                one.wake(one.waits_for, None)

    @rule(mode=MODES, place=FAULTS)
    def misfortune(self, mode: str, place: str) -> None:
        """Let the process die, or its database fail, at the next hit of a place."""
        # A body is the user's own: there the database does not fail.
        own = place.startswith("step.")
        self.world.fate.ordain("crash" if own else mode, place)

    # What must hold

    @invariant()
    def runs_are_what_they_must_be(self) -> None:
        """Statuses and results are those of the model, and nobody holds anything."""
        found = {run.key: run for run in Run.objects.all()}
        assert set(found) == set(self.expected)
        for key, one in self.expected.items():
            run = found[key]
            assert run.status == one.status, f"{key}: {run.status}, not {one.status}"
            assert run.lease_token is None, f"{key} is held"
            if one.ended == "completed":
                assert run.output == one.outcome, key
        booked = sum(one.booked for one in self.expected.values())
        assert Account.objects.get().balance == booked

    @invariant()
    def what_is_recorded_stays(self) -> None:
        """No result changes, no body of a recorded step was called again."""
        ended = {
            step.pk: (step.status, step.output)
            for step in Step.objects.filter(status__in=STEP_ENDED)
        }
        assert self.recorded.items() <= ended.items()
        self.recorded = ended
        assert not self.world.repeated

    @invariant()
    def nothing_is_impossible(self) -> None:
        """The doctor has nothing to mend."""
        assert not impossible()


def test_whatever_happens_runs_are_what_the_model_says() -> None:
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
            # To make an example small takes minutes, so it is done by hand.
            phases=list(Phase) if EXAMPLES else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
