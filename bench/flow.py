"""``python -m bench.flow``: the cost of limits, and of long queues behind limits.

Prints JSON lines. Run this module under ``python -m tests.services --``, or set
``DATABASE_URL`` and ``BROKER_URL``.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.processes import group
from bench.server import Database, Server

if TYPE_CHECKING:
    from durable_jobs import durable

SECONDS = 300.0
TENANTS = 20


def main(arguments: list[str]) -> int:
    """Print the measurements. Return 0, or 2 if a variable is missing."""
    options = _options(arguments)
    for name in ("DATABASE_URL", "BROKER_URL"):
        if not os.environ.get(name):
            print(f"Set {name}, or run this module under python -m tests.services --.")
            return 2
    server = Server(os.environ["DATABASE_URL"])
    with server.database("durable_flow") as database:
        os.environ["DATABASE_URL"] = database.address
        os.environ["DJANGO_SETTINGS_MODULE"] = "bench.limited.settings"
        _set_up()
        _measure(options, database)
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.flow", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="runs of each kind")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions")
    parser.add_argument(
        "--hot",
        type=int,
        nargs="*",
        default=[100, 5000, 50_000],
        help="lengths of the hot backlog",
    )
    parser.add_argument(
        "--queued",
        type=int,
        nargs="*",
        default=[100, 10_000, 200_000],
        help="queued runs of the plans",
    )
    parser.add_argument("--profile", action="store_true", help="profile the admissions")
    return parser.parse_args(arguments)


def _set_up() -> None:
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def _measure(options: argparse.Namespace, database: Database) -> None:
    if options.runs:
        _throughput(options, database)
    if options.profile:
        _profile(options.runs or 300)
    for hot in options.hot:
        for arrived in (True, False):
            _print("fairness", hot=hot, arrived=arrived, **_fairness(hot, arrived))
    for queued in options.queued:
        for plan in _plans(queued):
            _print("plan", queued=queued, **plan)


def _print(what: str, **figures: Any) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)


def _throughput(options: argparse.Namespace, database: Database) -> None:
    """Drain a full queue of each kind with two worker processes, ``repeat`` times."""
    from bench.limited.durable import FUNCTIONS

    worker = ["-m", "celery", "-q", "-A", "project", "worker", "-c", "2"]
    command = [sys.executable, *worker, "-l", "ERROR", "-Q", "default"]
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "worker.log"
        with group([command], {**os.environ, "PYTHONWARNINGS": "ignore"}, log):
            for function in FUNCTIONS.values():
                _emptied(function, 40)
            for _ in range(options.repeat):
                for name, function in FUNCTIONS.items():
                    seconds = _emptied(function, options.runs)
                    rate = round(options.runs / seconds, 1)
                    _print("throughput", kind=name, runs_a_second=rate)
            for name, function in FUNCTIONS.items():
                database.reset()
                before = _commits(database)
                _emptied(function, options.runs)
                found = database.counts(options.runs)
                commits = (_commits(database) - before) / options.runs
                _print(
                    "cost of a run with its start",
                    kind=name,
                    statements=round(found.calls, 2),
                    commits=round(commits, 2),
                )


def _commits(database: Database) -> int:
    count = "SELECT xact_commit FROM pg_stat_database WHERE datname = %s"
    return int(database.server.value(count, database.name))


def _emptied(function: durable.Function, count: int) -> float:
    """Start runs in one transaction. Return the seconds until all runs have ended."""
    from django.db import transaction

    from durable_jobs.models import Run

    with transaction.atomic():
        for n in range(count):
            data = {"tenant": n % TENANTS, "n": n, "once": str(uuid.uuid4())}
            function.enqueue(data)
    began = time.monotonic()
    while Run.objects.live().exists():
        if time.monotonic() - began > SECONDS:
            raise TimeoutError(f"The runs did not end within {SECONDS:.0f} s.")
        time.sleep(0.005)
    return time.monotonic() - began


def _profile(count: int) -> None:
    """Print a profile of admissions, without the claims and ends of the runs."""
    from bench.backlog import drain, fill

    fill("bench.limited.all", count, arrived=False)
    profile = cProfile.Profile()
    drain(profile)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(35)


def _fairness(hot: int, arrived: bool) -> dict[str, Any]:
    from bench.backlog import emptied, until_started

    with emptied():
        name = "bench.limited.tenants"
        return until_started(name, "bench/tenant", hot, arrived=arrived)


def _plans(queued: int) -> list[dict[str, Any]]:
    from bench.backlog import emptied, fill, plans

    with emptied():
        fill("bench.limited.none", queued, arrived=False)
        fill("bench.limited.tenants", queued, arrived=False)
        fill("bench.limited.tenants", queued)
        return [
            {
                "query": plan.name,
                "indexes": sorted(plan.indexes),
                "rows": plan.rows,
                "buffers": plan.buffers,
                "ms": plan.milliseconds,
            }
            for plan in plans()
        ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
