"""Named places at which a test can let the process die, stop, fail or wait.

The product passes them with ``hit``, which is free while nobody watches. A test watches
in its own process with ``watching``; a real worker, beat, web or command process is
armed by its environment::

    DURABLE_JOBS_FAILPOINTS="record.committed=kill@3; step.body[charge]=sleep(2)"
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import django.db

from durable_jobs.exceptions import ConfigurationError

logger = logging.getLogger("durable_jobs")

VARIABLE = "DURABLE_JOBS_FAILPOINTS"

#: Every place with what is true there. What its detail is stands in brackets.
POINTS = {
    "step.before": "A step is about to call its body [step id].",
    "step.body": "The body has returned, nothing of it is committed [step id].",
    "step.after": "The step is recorded and committed [step id].",
    "send.begin": "Events were checked, and none is written [first event's name].",
    "send.stored": "Events are written, their runs are not [first event's name].",
    "send.started": "Events and runs are written, not committed [first event's name].",
    "send.committed": "Events and runs are committed [first event's name].",
    "start.begin": "Runs are about to be written [first function's id].",
    "start.written": "Runs and what can end them are written [first function's id].",
    "admit.begin": "An admission has the lock, and has decided nothing [queue].",
    "admit.written": "What an admission decided is written, not committed [queue].",
    "admit.committed": "It is committed; whom it refuses has not ended [queue].",
    "admit.done": "Those that an admission refuses have ended [queue].",
    "claim.begin": "A worker is about to claim [queue].",
    "claim.committed": "Runs are claimed, none of them is begun [queue].",
    "claim.returned": "Claimed runs stand in line for a limit that came later.",
    "record.begin": "Steps are about to be written [last step's id].",
    "record.locked": "The run is locked, the step's effect is to come.",
    "record.written": "The step and its effect are written, not committed [step id].",
    "record.committed": "Steps are committed, the worker does not know [last step].",
    "suspend_step.begin": "A step is about to wait while its run goes on [step id].",
    "suspend_step.written": "Its record and waits are written, uncommitted [step id].",
    "suspend_step.committed": "The step and its waits are committed [step id].",
    "suspend.begin": "A run is about to be given back [first waiting step's id].",
    "suspend.written": "The run is given back, not committed [first waiting step].",
    "suspend.committed": "The run is given back [first waiting step's id].",
    "look.begin": "A wait is committed, what came before it is to be found [step id].",
    "look.done": "What came before a wait was found [step id].",
    "finish.begin": "A run is about to be ended [function's id].",
    "finish.ended": "The run has its end, what hangs on it has not [function's id].",
    "finish.written": "The end and all its effects are written [function's id].",
    "finish.committed": "The end is committed, nobody is told [function's id].",
    "wake.begin": "A wait is about to be ended by somebody [kind of wait].",
    "wake.taken": "The wait is gone, its step is still open [kind of wait].",
    "wake.written": "The step has its end, its run is queued [kind of wait].",
    "wake.committed": "The end of the wait is committed; no wake-up was sent [kind].",
    "saved.look": "A save is committed, the waits for it are to be found [model].",
    "route.read": "Events to be offered are read and locked.",
    "route.event": "An event is about to be offered to the waits [event's name].",
    "route.offered": "The event was offered, not committed [event's name].",
    "route.committed": "The event's offer is committed [event's name].",
    "tick.begin": "Somebody is about to tick.",
    "tick.done": "All the sweepers of a tick have ended.",
    "timers.read": "Due waits are read.",
    "timers.expired": "Sleeps and retries are ended, not committed.",
    "timers.committed": "Sleeps and retries are ended, no wake-up is sent.",
    "lease.expired": "Expired leases are read.",
    "lease.reclaimed": "An expired lease is taken back, no wake-up sent [function id].",
    "lease.renew": "Leases are about to be renewed.",
    "lease.renewed": "Leases are renewed.",
    "lease.giving": "Claimed runs are about to be given back unbegun.",
    "lease.given": "Claimed runs are given back unbegun, no wake-up is sent.",
    "ring.begin": "A wake-up is about to be sent [queue].",
    "cron.written": "Runs of crons are written, their times not moved [first's id].",
    "cron.moved": "Runs and next times of crons are not committed [first's id].",
    "cron.committed": "Runs and next times of crons are committed.",
    "prune.begin": "A batch is about to be deleted [table].",
    "prune.committed": "A batch is deleted [table].",
    "cancel.begin": "A person is about to cancel a run [function's id].",
    "cancel.committed": "A person has cancelled a run [function's id].",
    "pause.begin": "A run is about to be paused.",
    "pause.committed": "A run is paused.",
    "resume.begin": "A run is about to be resumed.",
    "resume.committed": "A run is resumed, no wake-up is sent.",
    "redrive.begin": "An ended run is about to be redriven [function's id].",
    "redrive.written": "The run is live again, not committed [function's id].",
    "redrive.committed": "The run is live again, no wake-up is sent [function's id].",
}

Watcher = Callable[[str, str], object]

_watchers: tuple[Watcher, ...] = ()


def failpoint(name: str, detail: str = "") -> None:
    """Pass a place; ``detail`` tells which step, function or queue it is about."""
    if _watchers:
        _tell(name, detail)


def _tell(name: str, detail: str) -> None:
    if name not in POINTS:
        msg = f"There is no failpoint {name!r}: write what it is into POINTS."
        raise ConfigurationError(msg)
    for watcher in _watchers:
        watcher(name, detail)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Call ``watcher(name, detail)`` at each place inside the block.

    What it raises is raised there. Others that watch go on watching.
    """
    global _watchers
    _watchers = (*_watchers, watcher)
    try:
        yield
    finally:
        _watchers = tuple(one for one in _watchers if one is not watcher)


def arm(text: str) -> None:
    """Do what ``text`` says at its places, for the rest of this process.

    Raises ``ConfigurationError`` when it does not say that.
    """
    global _watchers
    rules = parse(text)
    if not rules:
        return
    logger.warning("Failpoints are armed in process %d: %s", os.getpid(), text)
    _watchers = (*_watchers, *(rule.passed for rule in rules))


# What a text can say

ACTIONS = ("kill", "stop", "raise", "sleep")


@dataclass(slots=True)
class Rule:
    """What to do at one place: at each hit, at the ``at``-th, or from there on."""

    name: str
    action: Callable[[], object]
    detail: str | None = None
    at: int = 1
    on: bool = True
    _hits: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def passed(self, name: str, detail: str) -> None:
        """Act if this is the place, and the hit."""
        if name != self.name or self.detail not in (None, detail):
            return
        with self._lock:
            self._hits += 1
            number = self._hits
        if number == self.at or (self.on and number > self.at):
            self.action()


_RULE = re.compile(
    r"""\s*(?P<name>[\w.]+) (?:\[(?P<detail>[^\]]*)\])?
        \s*=\s* (?P<action>\w+) (?:\((?P<argument>[^)]*)\))?
        (?:@(?P<at>[1-9]\d*)(?P<on>\+)?)? \s*(?:;\s*|$)""",
    re.VERBOSE,
)


def parse(text: str) -> list[Rule]:
    """Return the rules in ``place[detail]=action(argument)@hit``, parted by ``;``."""
    rules, position = [], 0
    text = text.strip()
    while position < len(text):
        found = _RULE.match(text, position)
        if found is None:
            rest = text[position:]
            raise _wrong(rest, "place[detail]=action(argument)@hit, parted by ';'")
        rules.append(_rule(found))
        position = found.end()
    return rules


def _rule(found: re.Match[str]) -> Rule:
    name, at = found["name"], found["at"]
    if name not in POINTS:
        raise _wrong(name, f"one of {', '.join(POINTS)}")
    return Rule(
        name,
        _action(name, found["action"], found["argument"]),
        detail=found["detail"],
        at=int(at or 1),
        on=at is None or found["on"] is not None,
    )


def _action(name: str, action: str, argument: str | None) -> Callable[[], object]:
    if action not in ACTIONS:
        raise _wrong(action, f"one of {', '.join(ACTIONS)}")
    if action == "raise":
        return _raiser(name, argument or "OperationalError")
    if action == "sleep":
        return _sleeper(argument)
    if argument is not None:
        raise _wrong(f"{action}({argument})", f"{action}, which takes no argument")
    number = signal.SIGKILL if action == "kill" else signal.SIGSTOP
    return lambda: os.kill(os.getpid(), number)


def _raiser(name: str, kind: str) -> Callable[[], object]:
    error = getattr(django.db, kind, None)
    if not isinstance(error, type) or not issubclass(error, django.db.Error):
        raise _wrong(f"raise({kind})", "the name of an error of django.db")

    def fail() -> None:
        raise error(f"failpoint {name}")

    return fail


def _sleeper(argument: str | None) -> Callable[[], object]:
    try:
        seconds = float(argument or "")
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise _wrong(f"sleep({argument or ''})", "sleep(seconds)")
    return lambda: time.sleep(seconds)


def _wrong(found: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{VARIABLE}: got {found!r}, expected {expected}.")
