"""``python -m bench``: measure, and print JSON lines and a Markdown table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.marks import VARIABLE, Marks
from bench.report import Figures, counts, table, times
from bench.server import Counts, Server

if TYPE_CHECKING:
    from bench.measures import Bench

TURNS = 5
PACKAGES = ("Django", "celery", "kombu", "redis", "psycopg")


def main(arguments: list[str]) -> int:
    """Run the benchmark and return 0."""
    options = _options(arguments)
    for name in ("DATABASE_URL", "BROKER_URL"):
        if not os.environ.get(name):
            print(f"Set {name}, or run it under python -m tests.services --.")
            return 2
    server = Server(os.environ["DATABASE_URL"])
    with server.database(), tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "marks"
        os.environ["DATABASE_URL"] = server.address
        os.environ["DJANGO_SETTINGS_MODULE"] = "bench.settings"
        os.environ[VARIABLE] = str(path)
        _run(options, _bench(server, path))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="runs in a full queue")
    parser.add_argument("--alone", type=int, default=100, help="runs one by one")
    parser.add_argument("--idle", type=float, default=20, help="seconds of idleness")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions")
    parser.add_argument("--statements", action="store_true", help="list them too")
    return parser.parse_args(arguments)


def _bench(server: Server, path: Path) -> Bench:
    """Set Django up on the benchmark's database; models can be imported after."""
    import django

    django.setup()
    from django.core.management import call_command

    from bench.measures import Bench
    from project.celery import app

    call_command("migrate", verbosity=0)
    return Bench(app, server, Marks(path))


def _run(options: argparse.Namespace, bench: Bench) -> None:
    about = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in PACKAGES},
        **bench.server.settings(),
        "runs": options.runs,
        "alone": options.alone,
    }
    print(json.dumps(about), flush=True)
    counted = _counted(options, bench)
    repetitions = []
    for _ in range(options.repeat):
        repetitions.append(_repetition(options, bench) | counted)
        print(json.dumps(repetitions[-1]), flush=True)
    print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()))
    print("\n" + table(repetitions))


def _counted(options: argparse.Namespace, bench: Bench) -> Figures:
    """Count once: what is counted does not vary."""
    from bench import measures

    counted = measures.counted(bench, options.alone * 5, options.idle)
    if options.statements:
        _show("starting a run", counted.starting)
        _show("a run of a full queue", counted.loaded)
        _show("a run alone, with its start", counted.alone)
        _show("a second of idleness", counted.idle)
    return counts(counted)


def _repetition(options: argparse.Namespace, bench: Bench) -> Figures:
    from bench import measures

    loaded = measures.loaded(bench, options.runs, TURNS)
    return times(loaded, measures.alone(bench, options.alone))


def _show(what: str, found: Counts) -> None:
    print(f"\nStatements of {what}:", file=sys.stderr)
    for one in found.statements:
        text = " ".join(one.text.split())[:200]
        times = f"{one.calls:9.3f} times {one.milliseconds:7.3f} ms"
        print(f"{times}  {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
