"""Named places at which a test can kill, stop, fail or delay the process.

The code marks each place with ``failpoint()``, which costs nothing while there are no
watchers. A test watches its own process with ``watching()``. The environment arms a
real worker, beat, web or command process::

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

#: Each place with a sentence of what is true there. The detail is in brackets.
POINTS = {
    "step.before": "A step is about to call its body [step id].",
    "step.body": "The body has returned; its result is not committed [step id].",
    "step.after": "The step is recorded and committed [step id].",
    "send.begin": "Events are checked; none is written [first event's name].",
    "send.stored": "Events are written; their runs are not [first event's name].",
    "send.started": "Events and runs are written, not committed [first event's name].",
    "send.committed": "Events and runs are committed [first event's name].",
    "start.begin": "Runs are about to be written [first function's id].",
    "start.written": "Runs and their time limits are written [first function's id].",
    "admit.begin": "An admission has the lock and no decisions [queue].",
    "admit.written": "The decisions of an admission are not committed [queue].",
    "admit.committed": "The decisions are committed; skipped runs are live [queue].",
    "admit.done": "The runs that an admission skips have ended [queue].",
    "claim.begin": "A worker is about to claim [queue].",
    "claim.committed": "The claim is committed; no run has started [queue].",
    "claim.returned": "Claimed runs are back in admission, for a limit added later.",
    "record.begin": "Steps are about to be written [last step's id].",
    "record.locked": "The run is locked; the step's effect has not been called.",
    "record.written": "The step and its effect are written, not committed [step id].",
    "record.committed": "Steps are committed; the attempt has no response [last step].",
    "suspend_step.begin": "A step is about to wait while its run continues [step id].",
    "suspend_step.written": "The step and its waits are not committed [step id].",
    "suspend_step.committed": "The step and its waits are committed [step id].",
    "suspend.begin": "A run is about to be suspended [first waiting step's id].",
    "suspend.written": "The suspension is not committed [first waiting step].",
    "suspend.committed": "The suspension is committed [first waiting step's id].",
    "find_earlier.begin": "Earlier events are not checked for a new wait [step id].",
    "find_earlier.done": "Earlier events are checked for a wait [step id].",
    "finish.begin": "A run is about to end [function's id].",
    "finish.ended": "The run has ended; its dependents have not [function's id].",
    "finish.written": "The end and all its effects are written [function's id].",
    "finish.committed": "The end is committed, not announced [function's id].",
    "wake.begin": "A wait is about to end [kind of wait].",
    "wake.taken": "The wait is deleted; its step is still open [kind of wait].",
    "wake.written": "The step has ended and its run is queued [kind of wait].",
    "wake.committed": "The end of the wait is committed; no wake-up is sent [kind].",
    "save.committed": "A save is committed; waits for it are not checked [model].",
    "route.read": "Unrouted events are read and locked.",
    "route.event": "An event is about to be delivered to waits [event's name].",
    "route.delivered": "The event is delivered, not committed [event's name].",
    "route.committed": "The delivery of the event is committed [event's name].",
    "tick.begin": "A tick is about to start.",
    "tick.done": "All sweepers of a tick have ended.",
    "timers.read": "Due waits are read.",
    "timers.expired": "Sleeps and retries are ended, not committed.",
    "timers.committed": "Sleeps and retries are ended; no wake-up is sent.",
    "lease.expired": "Expired leases are read.",
    "lease.rescued": "A run is rescued; no wake-up is sent [function id].",
    "lease.renew": "Leases are about to be renewed.",
    "lease.renewed": "Leases are renewed.",
    "lease.release": "Claimed runs that have not started are about to be released.",
    "lease.released": "Claimed runs are released; no wake-up is sent.",
    "notify.begin": "A wake-up is about to be sent [queue].",
    "cron.written": "Runs of crons are written; next times are not [first's id].",
    "cron.moved": "Runs and next times of crons are not committed [first's id].",
    "cron.committed": "Runs and next times of crons are committed.",
    "prune.begin": "A batch is about to be deleted [table].",
    "prune.committed": "A batch is deleted [table].",
    "cancel.begin": "A run is about to be cancelled [function's id].",
    "cancel.committed": "A run is cancelled [function's id].",
    "pause.begin": "A run is about to be paused.",
    "pause.committed": "A run is paused.",
    "resume.begin": "A run is about to be resumed.",
    "resume.committed": "A run is resumed; no wake-up is sent.",
    "redrive.begin": "An ended run is about to be redriven [function's id].",
    "redrive.written": "The run is live again, not committed [function's id].",
    "redrive.committed": "The run is live again; no wake-up is sent [function's id].",
}

Watcher = Callable[[str, str], object]

_watchers: tuple[Watcher, ...] = ()


def failpoint(name: str, detail: str = "") -> None:
    """Mark a place. ``detail`` names the step, function or queue."""
    if _watchers:
        _call_watchers(name, detail)


def _call_watchers(name: str, detail: str) -> None:
    if name not in POINTS:
        msg = f"Unknown failpoint {name!r}. Describe it in POINTS."
        raise ConfigurationError(msg)
    for watcher in _watchers:
        watcher(name, detail)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Call ``watcher(name, detail)`` at each place inside the block.

    Its exceptions propagate from the place. Outer watchers stay active.
    """
    global _watchers
    _watchers = (*_watchers, watcher)
    try:
        yield
    finally:
        _watchers = tuple(one for one in _watchers if one is not watcher)


def arm(text: str) -> None:
    """Apply the rules in ``text`` for the rest of this process.

    Raise ``ConfigurationError`` if the text is invalid.
    """
    global _watchers
    rules = parse(text)
    if not rules:
        return
    logger.warning("Failpoints are armed in process %d: %s", os.getpid(), text)
    _watchers = (*_watchers, *(rule.passed for rule in rules))


# Rules as text

ACTIONS = ("kill", "stop", "raise", "sleep")


@dataclass(slots=True)
class Rule:
    """An action at one place: at the ``at``-th hit, and with ``on`` at later hits."""

    name: str
    action: Callable[[], object]
    detail: str | None = None
    at: int = 1
    on: bool = True
    _hits: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def passed(self, name: str, detail: str) -> None:
        """Act if the place and the number of the hit match."""
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
    """Return the rules in ``place[detail]=action(argument)@hit``, split by ``;``."""
    rules, position = [], 0
    text = text.strip()
    while position < len(text):
        found = _RULE.match(text, position)
        if found is None:
            rest = text[position:]
            raise _wrong(rest, "place[detail]=action(argument)@hit, separated by ';'")
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
        raise _wrong(f"raise({kind})", "the name of an error in django.db")

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
