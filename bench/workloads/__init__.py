"""The workloads, one module each: the calls to every peer, and the figures."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from bench.sessions import Session
from bench.sizes import Sizes

Figures = dict[str, float]

#: The order of measuring: the last workloads leave the tables full.
NAMES = (
    "w01_throughput",
    "w02_start",
    "w04_enqueue",
    "w05_sleeps",
    "w06_fan_out",
    "w07_resume",
    "w08_storage",
    "w10_timers",
    "w11_waits",
    "w09_history",
    "w12_idle",
    "w13_memory",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a workload. ``better`` is "more", "less", or "" for neither."""

    name: str
    unit: str
    better: str = "less"


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload. ``once``: the figures are counts, so one repetition is enough.

    ``workers``: whether workers run during the measurement.
    """

    names: tuple[str, ...]
    title: str
    figures: tuple[Figure, ...]
    measure: Callable[[Session, Sizes], Figures]
    workers: bool = True
    once: bool = False


def workload(module: str) -> Workload:
    """Return a workload by its module's name."""
    found: Workload = importlib.import_module(f"bench.workloads.{module}").WORKLOAD
    return found


def quantile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milli(values: list[float], share: float = 0.5) -> float:
    """Return a quantile of seconds, in milliseconds."""
    return quantile(values, share) * 1000
