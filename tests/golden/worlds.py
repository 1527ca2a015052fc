"""A world that records its stages, and a world that continues from a stage."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest import mock

from durable_jobs.statuses import StepStatus
from durable_jobs.testing import Kit
from tests.crash.exhaustive.cases import Case
from tests.crash.exhaustive.dying import Fate
from tests.crash.exhaustive.world import BEGINNING, RECOVERY, World
from tests.golden import rows
from tests.golden.rows import Rows

Stage = dict[str, Any]

#: Nothing is pruned, however long a run sleeps.
KEPT: dict[str, Any] = {
    "RETENTION": dict.fromkeys(
        ("completed", "failed", "cancelled", "skipped", "events")
    )
}


@contextmanager
def steady(since: int = 0) -> Iterator[itertools.count[int]]:
    """Make ids, counted after ``since``, and random choices deterministic."""
    numbers = itertools.count(since + 1)
    begun = int(BEGINNING.timestamp() * 1000)

    def numbered() -> uuid.UUID:
        number = next(numbers)
        # Each id has its own milliseconds: a step's id begins as its run's does.
        return uuid.UUID(int=(begun + number << 80) | 7 << 76 | 2 << 62 | number)

    before = random.getstate()
    random.seed(since)
    try:
        with (
            mock.patch("durable_jobs.ids.uuid7", numbered),
            mock.patch("uuid.uuid4", numbered),
        ):
            yield numbers
    finally:
        random.setstate(before)


class Recorder(World):
    """Records all rows at each idle state, and after a crash."""

    def __init__(self, fate: Fate, numbers: itertools.count[int]) -> None:
        super().__init__(fate)
        self.stages: list[Stage] = []
        self._numbers = numbers
        self._done = 0

    def do(self, action: Any) -> None:
        """Perform an action, and record the rows when all is idle."""
        super().do(action)
        self._done += 1
        self._see("at rest")

    def left_behind(self) -> None:
        """Record the rows after a crash."""
        place, detail = self.fate.hits[self.fate.at or 0]
        self._see(f"died at {place} [{detail}]")

    def end(self) -> None:
        """Record the rows at the end."""
        self._see("ended")

    def _see(self, what: str) -> None:
        self.stages.append(
            {
                "state": what,
                "actions": self._done,
                "now": self.kit.now().isoformat(),
                "ids": next(self._numbers),
                "bodies": dict(sorted(self.effects.items())),
                "tokens": list(self.tokens),
                "until": None if self.until is None else self.until.isoformat(),
                "tables": rows.dump(),
            }
        )


def record(name: str, build: Case) -> dict[str, Any]:
    """Run a case, then once more with a death half-way; return all stages."""
    quiet = Fate()
    stages = _lived(build, quiet)
    working = [
        at for at, hit in enumerate(quiet.hits) if not hit[0].startswith("tick.")
    ]
    dead = Fate("crash", working[len(working) // 2])
    died = [one for one in _lived(build, dead) if one["state"].startswith("died")]
    tables = {table for stage in [*stages, *died] for table in stage["tables"]}
    return {
        "case": name,
        "migration": rows.newest_migration(),
        "columns": {t: c for t, c in rows.columns().items() if t in tables},
        "stages": [*stages[:-1], *died, stages[-1]],
    }


def _lived(build: Case, fate: Fate) -> list[Stage]:
    rows.begin_anew()
    with steady() as numbers:
        world = Recorder(fate, numbers)
        world.live(build)
        world.end()
    return world.stages


class Resumed(World):
    """An installation that was upgraded between two actions of its client."""

    def __init__(self, stage: Mapping[str, Any]) -> None:
        super().__init__(Fate())
        self._stage = stage
        self.kit = Kit(now=datetime.fromisoformat(stage["now"]))
        self.effects = Counter(stage["bodies"])
        self.tokens = list(stage["tokens"])
        until = stage["until"]
        self.until = None if until is None else datetime.fromisoformat(until)

    def go_on(self, build: Case) -> Stage:
        """Continue from a stage to the end, and return the outcome."""
        with steady(self._stage["ids"]) as numbers, self.kit:
            script = build(self)
            if self._stage["state"].startswith("died"):
                self.recover()
            for action in script[self._stage["actions"] :]:
                self.do(action)
            self.survives(lambda: self.kit.advance(RECOVERY))
            problems = self.problems()
            assert not problems, problems
            return {
                "bodies": dict(sorted(self.effects.items())),
                "tables": rows.dump(),
                "either": sorted(self.either),
                "ids": next(numbers),
            }


# What must be the same


def outcome(
    tables: Rows, *, besides: frozenset[str] = frozenset(), ordered: bool = True
) -> Any:
    """Return the outcome without ids, times, and the steps in ``besides``.

    If ``ordered``, the steps of a run are in the order of their records.
    """
    runs = tables.get("durable_jobs_run", [])
    events = tables.get("durable_jobs_event", [])
    names = {run["id"]: f"<{run['function']}>" for run in runs}
    names |= {event["id"]: f"<{event['name']}>" for event in events}
    steps: dict[str, list[Any]] = {run["id"]: [] for run in runs}
    for step in sorted(tables.get("durable_jobs_step", []), key=_recorded):
        if step["name"] not in besides:
            steps[step["run_id"]].append(_step(step))
    found = {
        "runs": [_run(run, steps[run["id"]], ordered=ordered) for run in runs],
        "events": sorted([event["name"], event["pending"]] for event in events),
        "balances": [row["balance"] for row in tables["lab_account"]],
    }
    text = json.dumps(found)
    for id, name in names.items():
        text = text.replace(json.dumps(id)[1:-1], json.dumps(name)[1:-1])
    outcome = json.loads(text)
    outcome["runs"].sort(key=json.dumps)
    return outcome


def _recorded(step: Mapping[str, Any]) -> tuple[int, str]:
    return step["position"], step["key"]


def _run(run: Mapping[str, Any], steps: list[Any], *, ordered: bool) -> dict[str, Any]:
    same = ("function", "version", "status", "reason", "trigger", "parent_id")
    found = {name: run.get(name) for name in (*same, "parent_relation")}
    found |= {name: lasting(run.get(name)) for name in ("data", "output", "error")}
    found["steps"] = steps if ordered else sorted(steps, key=json.dumps)
    return found


def _step(step: Mapping[str, Any]) -> list[Any]:
    output = step.get("output")
    given = None if output is None else lasting(json.loads(output))
    error = lasting(step.get("error"))
    return [step["name"], step["kind"], step["status"], given, error]


#: Keys whose values differ between runs.
PASSING = frozenset({"id", "ts", "at", "traceback", "fired_at"})


def lasting(value: Any) -> Any:
    """Return a value without what differs from run to run."""
    if isinstance(value, dict):
        return {k: lasting(v) for k, v in value.items() if k not in PASSING}
    return [lasting(one) for one in value] if isinstance(value, list) else value


def results(tables: Rows) -> dict[str, Any]:
    """Return the permanent records, by the ids of steps."""
    done = [
        step
        for step in tables.get("durable_jobs_step", [])
        if step["status"] == StepStatus.COMPLETED
    ]
    return {
        step["id"]: (_recorded(step), step["kind"], step.get("output")) for step in done
    }
