"""``python -m bench.flow``: what limits cost, and what long queues behind them cost.

Prints JSON lines. Run it under ``python -m tests.services --``, or give
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
    """Measure and return 0."""
    options = _options(arguments)
    for name in ("DATABASE_URL", "BROKER_URL"):
        if not os.environ.get(name):
            print(f"Set {name}, or run it under python -m tests.services --.")
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
        "--hot", type=int, nargs="*", default=[100, 5000, 50_000], help="hot backlogs"
    )
    parser.add_argument(
        "--queued", type=int, nargs="*", default=[100, 10_000, 200_000], help="plans"
    )
    parser.add_argument("--profile", action="store_true", help="of admissions")
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
            _tell("fairness", hot=hot, arrived=arrived, **_fairness(hot, arrived))
    for queued in options.queued:
        for plan in _plans(queued):
            _tell("plan", queued=queued, **plan)


def _tell(what: str, **figures: Any) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)


def _throughput(options: argparse.Namespace, database: Database) -> None:
    """Empty a full queue with two worker processes, kind after kind, in turns."""
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
                    _tell("throughput", kind=name, runs_a_second=rate)
            for name, function in FUNCTIONS.items():
                database.reset()
                before = _commits(database)
                _emptied(function, options.runs)
                found = database.counts(options.runs)
                commits = (_commits(database) - before) / options.runs
                _tell(
                    "cost of a run with its start",
                    kind=name,
                    statements=round(found.calls, 2),
                    commits=round(commits, 2),
                )


def _commits(database: Database) -> int:
    count = "SELECT xact_commit FROM pg_stat_database WHERE datname = %s"
    return int(database.server.value(count, database.name))


def _emptied(function: durable.Function, count: int) -> float:
    """Start runs in one transaction and return the seconds until all have ended."""
    from django.db import transaction

    from durable_jobs.models import Run

    with transaction.atomic():
        for n in range(count):
            data = {"tenant": n % TENANTS, "n": n, "once": str(uuid.uuid4())}
            function.enqueue(data)
    began = time.monotonic()
    while Run.objects.live().exists():
        if time.monotonic() - began > SECONDS:
            raise TimeoutError("Runs were left unfinished.")
        time.sleep(0.005)
    return time.monotonic() - began


def _profile(count: int) -> None:
    """Print where the time of admissions goes, claims and ends around them left out."""
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
