"""The figures of one repetition, and the table of all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.marks import CALLS

if TYPE_CHECKING:
    from bench.measures import Compared, Counted, Rate

Figures = dict[str, float]
MILLI = 1000


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to reach: at least, or at most, a limit."""

    limit: float
    least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:g}"

    def met(self, value: float) -> bool:
        """Tell whether a value reaches it."""
        near = round(value, 1)  # a count may hold what came once, not with each
        return value >= self.limit if self.least else near <= self.limit


TARGETS = {
    "five-step runs / plain tasks": Target(0.4, least=True),
    "between steps / bare commit, loaded": Target(2),
    "between steps / bare commit, alone": Target(2),
    "statements to enqueue": Target(1),
    "statements a run, alone": Target(8),
    "statements a run, loaded": Target(8),
    "waits for the disk a run, alone": Target(6),
    "statements a second, idle": Target(1.5),
    "MB resident, worker child": Target(120),
}


def times(loaded: Compared, alone: Compared) -> Figures:
    """Return what was timed in one repetition, by name."""
    return {
        **_rates(loaded.runs, loaded.tasks),
        **_latencies(loaded, alone),
        "MB resident, worker child": max(one.resident for one in loaded.memory),
        "MB proportional, worker child": max(m.proportional for m in loaded.memory),
    }


def _rates(runs: Rate, tasks: Rate) -> Figures:
    return {
        "five-step runs a second": runs.count / runs.seconds,
        "steps a second": runs.count / runs.seconds * CALLS,
        "plain tasks a second": tasks.count / tasks.seconds,
        "five-step runs / plain tasks": tasks.seconds / runs.seconds,
        "runs / tasks, to the last bell": tasks.quiet_seconds / runs.quiet_seconds,
        "runs a second, started meanwhile": runs.count / runs.live_seconds,
        "tasks a second, started meanwhile": tasks.count / tasks.live_seconds,
        "runs / tasks, started meanwhile": tasks.live_seconds / runs.live_seconds,
        "ms of processor a run, worker": runs.processor_seconds / runs.count * MILLI,
        "ms of processor a task, worker": tasks.processor_seconds / tasks.count * MILLI,
    }


def _latencies(loaded: Compared, alone: Compared) -> Figures:
    one, two = alone.one_connection, loaded.two_connections
    return {
        "ms to the first step, p50": _ms(alone.runs.starts, 0.5),
        "ms to the first step, p95": _ms(alone.runs.starts, 0.95),
        "ms to the plain task, p50": _ms(alone.tasks.starts, 0.5),
        "ms to the plain task, p95": _ms(alone.tasks.starts, 0.95),
        "ms a bare commit, alone": _ms(one, 0.5),
        "ms a bare commit, 1 connection": _ms(loaded.one_connection, 0.5),
        "ms a bare commit, 2 connections": _ms(two, 0.5),
        "ms between steps alone, p50": _ms(alone.runs.gaps, 0.5),
        "ms between steps alone, p95": _ms(alone.runs.gaps, 0.95),
        "ms between steps loaded, p50": _ms(loaded.runs.gaps, 0.5),
        "ms between steps loaded, p95": _ms(loaded.runs.gaps, 0.95),
        "between steps / bare commit, alone": _ratio(alone.runs.gaps, one),
        "between steps / bare commit, loaded": _ratio(loaded.runs.gaps, two),
    }


def counts(counted: Counted) -> Figures:
    """Return what the server counted, by name."""
    starting, loaded, alone = counted.starting, counted.loaded, counted.alone
    return {
        "statements to enqueue": starting.calls,
        "statements a run, loaded": loaded.calls,
        "statements a run, alone": alone.calls - starting.calls,
        "commits a run, loaded": loaded.commits,
        "waits for the disk a run, loaded": loaded.syncs,
        "waits for the disk a run, alone": alone.syncs - starting.syncs,
        "WAL bytes a run": loaded.wal_bytes,
        "statements a second, idle": counted.idle.calls,
    }


def _ms(values: list[float], share: float) -> float:
    return quantile(values, share) * MILLI


def _ratio(values: list[float], yardstick: list[float]) -> float:
    return statistics.median(values) / statistics.median(yardstick)


def table(repetitions: Sequence[Figures]) -> str:
    """Return the median and the spread of every figure, as a Markdown table."""
    lines = [
        "| figure | median | least | most | target | met |",
        "|---|--:|--:|--:|--:|:-:|",
    ]
    for name in repetitions[0]:
        values = [figures[name] for figures in repetitions]
        median = statistics.median(values)
        target = TARGETS.get(name)
        goal, met = ("", "") if target is None else (target, _word(target.met(median)))
        lines.append(
            f"| {name} | {median:.4g} | {min(values):.4g} | {max(values):.4g} "
            f"| {goal} | {met} |"
        )
    return "\n".join(lines)


def _word(met: bool) -> str:
    return "yes" if met else "NO"
