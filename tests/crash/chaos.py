"""Chaos test: random faults of all kinds while runs of all kinds execute.

Run ``python -m tests.crash.chaos --seconds 180 --seed 7``. The command starts its own
PostgreSQL and broker. It prints the seed and one line of JSON with what it did.

The command fails if a run does not end in time or a guarantee is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import django

from tests.lab.brokers import flush, own_broker
from tests.lab.databases import migrate, own_postgres
from tests.lab.processes import SETTINGS, Lab, Process
from tests.lab.proxy import Proxy, proxied_broker, proxied_database

if TYPE_CHECKING:
    from durable_jobs.models import Run

T = TypeVar("T")

WORKERS, BEATS = 4, 2
LEASE = 3.0
#: Number of live runs, and seconds in which the last run must end after the faults.
CROWD, PATIENCE = 30, 120.0
#: Minimum seconds between two crashes of the server.
RECOVERY = 12.0


def insisting(call: Callable[[], T]) -> T:
    """Repeat a call until the database is reachable; the call must be idempotent."""
    from django.db import Error, connections

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except Error:
            connections.close_all()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Load:
    """Starts runs, each under its own key, and sends each waiting run its event."""

    def __init__(self, order: random.Random) -> None:
        self._order = order
        self.started: dict[int, Run] = {}
        self._unsent: list[int] = []

    def more(self) -> None:
        """Start runs until enough are live, and send some of the events."""
        from durable_jobs import durable
        from durable_jobs.models import Run
        from tests.lab import chaotic

        live = insisting(lambda: Run.objects.live().filter(parent=None).count())
        for _ in range(CROWD - live):
            number = len(self.started)
            function = chaotic.ALL[number % len(chaotic.ALL)]
            start = function.using(key=f"chaos {number}")
            self.started[number] = insisting(lambda: start.enqueue({"n": number}))  # noqa: B023  # at once
            if function is chaotic.waits:
                self._unsent.append(number)
        while len(self._unsent) > CROWD / 10:
            number = self._unsent.pop(self._order.randrange(len(self._unsent)))
            self._send(number, durable)

    def finish(self) -> None:
        """Send the remaining events."""
        from durable_jobs import durable

        for number in self._unsent:
            self._send(number, durable)

    def _send(self, number: int, durable: Any) -> None:
        data = {"n": number}
        insisting(lambda: durable.send("chaos/go", data, id=f"chaos-go-{number}"))


class Chaos:
    """The faults. Each method is one kind, counted when it has taken effect."""

    def __init__(
        self, order: random.Random, lab: Lab, services: tuple[Any, Any, Proxy, Proxy]
    ) -> None:
        self._order = order
        self._lab = lab
        self._server, self._broker, self._database, self._bus = services
        self._frozen: list[tuple[float, Process]] = []
        self._crashed_at = 0.0
        self.fired: Counter[str] = Counter()
        self.workers = [self._worker() for _ in range(WORKERS)]
        self.beats = [lab.beat() for _ in range(BEATS)]
        self._plan: list[Any] = list(KINDS)
        order.shuffle(self._plan)

    def _worker(self) -> Process:
        pool = self._order.choice([("-P", "threads", "-c", "2"), ("-c", "2")])
        return self._lab.worker(*pool)

    def strike(self) -> None:
        """Inject the next fault of a shuffled plan. The first has each kind once."""
        if not self._plan:
            self._plan = [kind for kind, weight in KINDS.items() for _ in range(weight)]
            self._order.shuffle(self._plan)
        kind = self._plan.pop()
        self.fired[kind.__name__] += kind(self)

    def missing(self) -> list[str]:
        """Return the kinds that have not taken effect yet."""
        return [kind.__name__ for kind in KINDS if not self.fired[kind.__name__]]

    def thaw(self, *, all: bool = False) -> None:
        """Continue frozen processes whose time is up, and replace dead ones."""
        for until, process in list(self._frozen):
            if all or time.monotonic() > until:
                process.signal(signal.SIGCONT)
                self._frozen.remove((until, process))
        self.workers = [one if one.alive else self._worker() for one in self.workers]
        self.beats = [one if one.alive else self._lab.beat() for one in self.beats]

    def heal(self) -> None:
        """End all faults."""
        self._database.heal()
        self._bus.heal()
        self.thaw(all=True)

    # The kinds

    def kill_worker(self) -> int:
        self._order.choice(self.workers).kill()
        return 1

    def freeze_worker(self) -> int:
        return self._freeze(self._order.choice(self.workers))

    def kill_beat(self) -> int:
        self._order.choice(self.beats).kill()
        return 1

    def freeze_beat(self) -> int:
        return self._freeze(self._order.choice(self.beats))

    def _freeze(self, process: Process) -> int:
        if any(one is process for _, one in self._frozen) or not process.alive:
            return 0
        process.signal(signal.SIGSTOP)
        long = LEASE * self._order.uniform(1, 1.8)
        self._frozen.append((time.monotonic() + long, process))
        return 1

    def flush_broker(self) -> int:
        return int(flush(self._broker.url) > 0)

    def crash_server(self) -> int:
        if time.monotonic() - self._crashed_at < RECOVERY:
            return 0
        self._server.crash()
        self._crashed_at = time.monotonic()
        return 1

    def terminate_backends(self) -> int:
        from tests.lab.watching import backends, terminate

        def some() -> int:
            pids = backends()
            return terminate(self._order.sample(pids, min(3, len(pids))))

        return insisting(some)

    def cut_database(self) -> int:
        return self._database.cut()

    def cut_broker(self) -> int:
        return self._bus.cut()

    def swallow_commit(self) -> int:
        before = self._database.counts["swallowed"]
        self._database.swallow()
        deadline = time.monotonic() + 1
        while self._database.armed and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._database.counts["swallowed"] - before


KINDS = {
    Chaos.kill_worker: 2,
    Chaos.freeze_worker: 2,
    Chaos.kill_beat: 1,
    Chaos.freeze_beat: 1,
    Chaos.flush_broker: 2,
    Chaos.crash_server: 1,
    Chaos.terminate_backends: 2,
    Chaos.cut_database: 2,
    Chaos.cut_broker: 1,
    Chaos.swallow_commit: 2,
}


@contextmanager
def laboratory() -> Iterator[tuple[Lab, tuple[Any, Any, Proxy, Proxy]]]:
    """Yield a lab with its own servers, which its workers reach through proxies."""
    with ExitStack() as stack:
        server = stack.enter_context(own_postgres())
        broker = stack.enter_context(own_broker())
        addresses = {"DATABASE_URL": server.url, "BROKER_URL": broker.url}
        os.environ.update(addresses | SETTINGS)
        django.setup()
        from tests.lab import journal
        from tests.lab.models import Account

        migrate(server.url)
        journal.install()
        names = [f"account {number}" for number in range(8)]
        Account.objects.bulk_create(Account(name=name) for name in names)
        database, url = stack.enter_context(
            proxied_database(server.url, connect_timeout="5")
        )
        bus, bus_url = stack.enter_context(proxied_broker(broker.url))
        lab = Lab({**os.environ, "DATABASE_URL": url, "BROKER_URL": bus_url})
        # Workers are killed all the time; no run may fail because of that.
        lab.environment["LAB_MAX_CRASHES"] = "1000"
        stack.callback(lab.close)
        yield lab, (server, broker, database, bus)


def main(arguments: list[str]) -> int:
    """Run the chaos test and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311  # no secret
    options = parser.parse_args(arguments)
    print(f"chaos of {options.seconds:.0f} s, seed {options.seed}", flush=True)
    with laboratory() as (lab, services):
        chaos = Chaos(random.Random(options.seed), lab, services)  # noqa: S311  # no secret
        load = Load(random.Random(options.seed + 1))  # noqa: S311  # no secret
        _storm(chaos, load, options.seconds)
        chaos.heal()
        load.finish()
        took = _calm(chaos, load)
        trouble = _trouble(load)
        done = {"runs": len(load.started), "calm_after": took, **chaos.fired}
        print(json.dumps(done), flush=True)
        if trouble:
            print("\n".join([*trouble, lab.texts()]), flush=True)
    return 1 if trouble else 0


def _storm(chaos: Chaos, load: Load, seconds: float) -> None:
    """Inject faults for that time, then until each kind has taken effect.

    A fault that finds no target has no effect.
    """
    begun = time.monotonic()
    while (since := time.monotonic() - begun) < seconds or chaos.missing():
        if since > seconds + PATIENCE:
            raise TimeoutError(f"{', '.join(chaos.missing())} had nothing to strike")
        load.more()
        chaos.strike()
        chaos.thaw()
        time.sleep(chaos._order.uniform(0.2, 1))


def _calm(chaos: Chaos, load: Load) -> float:
    """Wait until every run has ended, and return the seconds."""
    from durable_jobs.models import Run

    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        chaos.thaw()
        if not insisting(lambda: Run.objects.live().count()):
            break
        time.sleep(0.1)
    return round(time.monotonic() - begun, 1)


def _trouble(load: Load) -> list[str]:
    """Return a sentence for each wrong run and each broken rule."""
    from tests.lab import checker

    found = insisting(checker.violations)
    for number, run in load.started.items():
        run.refresh_from_db()
        given = run.output["n"] if isinstance(run.output, dict) else run.output
        if run.status != "completed" or given != number:
            found.append(f"{run} of {number}: {run.status} {run.output} {run.error}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
