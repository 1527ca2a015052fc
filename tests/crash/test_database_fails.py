"""The database is unreachable, terminated, full or slow; every run still ends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from psycopg import IsolationLevel

from durable_jobs import durable
from durable_jobs.models import Event, FailedAttempt, Run, Step
from tests.lab import durable as functions
from tests.lab import wire as wires
from tests.lab.databases import limited_role, pointed, trouble
from tests.lab.models import Account, Effect, Gate
from tests.lab.processes import Lab, Process, until
from tests.lab.proxy import Proxy, proxied_database
from tests.lab.watching import backends, completed, ended, labels, terminate
from tests.lab.wire import Wire

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


@contextmanager
def behind_proxy(
    lab: Lab, *arguments: str, **options: str
) -> Iterator[tuple[Proxy, Process]]:
    """Yield a worker that reaches the database through a proxy."""
    with proxied_database(lab.environment["DATABASE_URL"], **options) as (proxy, url):
        worker = lab.worker(*(arguments or ("-P", "solo")), DATABASE_URL=url)
        yield proxy, worker
        worker.kill()


RENEWAL = "the renewal of leases"
#: The statement whose reply is lost, and the statement before it.
COMMITS = {
    "the claim": ("WITH async_commit", ""),
    "a step's record": ("WITH fence", ""),
    "an atomic step": ("^COMMIT$", 'UPDATE "lab_account"'),
    "a suspension": ("^COMMIT$", 'INSERT INTO "durable_jobs_wait"'),
    "the end of a sleep": ("^COMMIT$", 'DELETE FROM "durable_jobs_wait"'),
    RENEWAL: ("^COMMIT$", 'SET "lease_until"'),
    "the end of a run": ("SET status = \\$1", ""),
    "the end of a child": ("^COMMIT$", "\"status\" = 'completed'"),
}


def test_commit_whose_reply_is_lost_counts_and_counts_once(lab: Lab) -> None:
    lab.beat()
    booked = 0
    with behind_proxy(lab) as (proxy, worker):
        for number, (what, (pattern, after)) in enumerate(COMMITS.items(), 1):
            proxy.swallow(pattern, after=after)
            if what == RENEWAL:  # the retry comes later, and other runs may end before
                booked += hold_until_renewed(lab, proxy)
            run = functions.mixed.enqueue()
            plain = functions.five_steps.enqueue()
            held = functions.patient.enqueue()
            until(lambda: completed(run, plain, held), f"the runs after {what}", lab)  # noqa: B023  # at once
            booked += 6
            assert proxy.counts["swallowed"] == number, what
            assert worker.alive
            assert Account.objects.get(name="ledger").balance == booked


def hold_until_renewed(lab: Lab, proxy: Proxy) -> int:
    """Block a run until its lease is renewed; count bookings."""
    run = functions.gated.enqueue({"limit": "renewed"})
    until(lambda: not proxy.armed, "a renewal", lab)
    Gate.objects.create(name="renewed")
    until(lambda: completed(run), "the run whose lease was renewed", lab)
    return 1


def test_sender_that_misses_the_reply_to_its_commit_sends_again(lab: Lab) -> None:
    lab.worker()
    own = lab.environment["DATABASE_URL"]
    with proxied_database(own) as (proxy, url), pointed(url):
        proxy.swallow(after='INSERT INTO "durable_jobs_event"')
        with pytest.raises(OperationalError), transaction.atomic():
            durable.send("lab/ping", id="ping-1")
        assert proxy.counts["swallowed"] == 1
        connection.close()
        durable.send("lab/ping", id="ping-1")
        proxy.swallow(after="SET \"status\" = 'cancelled'")
        run = functions.gated.enqueue({"limit": "never"})
        with pytest.raises(OperationalError):
            run.cancel("by hand")
        assert proxy.counts["swallowed"] == 2
        connection.close()
        assert not run.cancel("again"), "the first call has ended it"
    assert Event.objects.count() == 1
    pinged = Run.objects.get(function="lab.pinged")
    until(lambda: ended(pinged), "the ping", lab)
    assert labels(pinged) == {"ping": 1}


def test_server_processes_that_are_ended_cost_an_attempt_and_no_worker(
    lab: Lab,
) -> None:
    worker = lab.worker("-P", "prefork", "-c", "2")
    lab.beat()
    runs = [functions.patient.enqueue() for _ in range(8)]
    until(lambda: Effect.objects.count() > 4, "the runs to begin", lab)
    hit = 0
    for floor in range(8, 40, 4):
        until(lambda floor=floor: Effect.objects.count() > floor, "some steps", lab)
        hit += terminate(backends())
    assert hit >= 8
    until(lambda: completed(*runs), "all runs to end", lab)
    assert worker.alive
    assert Account.objects.get(name="ledger").balance == 40


def another_ends_it(lab: Lab, run: Run) -> None:
    """Let another worker take over a blocked run, end it and die."""
    other = lab.worker("-P", "solo")
    lab.beat()
    until(lambda: labels(run)["g:begin"] == 2, "the other to take over", lab)
    Gate.objects.create(name="g")
    until(lambda: completed(run), "the run to end", lab)
    other.kill()


def test_silent_network_delays_a_run_no_longer_than_its_lease(lab: Lab) -> None:
    with behind_proxy(lab, connect_timeout="2") as (proxy, cut_off):
        run = functions.gated.enqueue({"limit": "g"})
        until(lambda: labels(run)["g:begin"] == 1, "the body to begin", lab)
        proxy.blackhole()
        until(lambda: proxy.counts["lost"], "packets to be lost", lab)
        another_ends_it(lab, run)
        proxy.heal()  # As kernel timeouts do: the connections end.
        again = functions.five_steps.enqueue()
        until(lambda: completed(again), "the first worker to go on", lab)
        done = Effect.objects.filter(run=str(again.pk))
        assert set(done.values_list("pid", flat=True)) == {cut_off.pid}
    assert Account.objects.get(name="ledger").balance == 1


def test_slow_and_torn_network_loses_nothing(lab: Lab) -> None:
    lab.beat()
    with behind_proxy(lab, "-P", "threads", "-c", "4") as (proxy, _):
        proxy.delay = 0.005
        runs = [functions.patient.enqueue() for _ in range(4)]
        for count in range(1, 5):
            proxy.cut_after(20_000)
            until(lambda: not proxy.armed, "enough runs to be sent", lab)  # at once
            assert proxy.counts["cut"] == count
        proxy.heal()
        until(lambda: completed(*runs), "all runs to end", lab)
        assert proxy.counts["delayed"] > 100
    assert Account.objects.get(name="ledger").balance == 20


@contextmanager
def on_a_wire(
    lab: Lab, *arguments: str, **options: str
) -> Iterator[tuple[Wire, Process]]:
    """Yield a worker that reaches the database over its own network."""
    if not lab.environment["BROKER_URL"].startswith("redis+socket"):
        pytest.skip("the worker would lose its broker in another network")
    seed = random.randrange(10**6)  # noqa: S311  # no secret
    print("seed", seed)
    with ExitStack() as stack:
        try:
            wire = stack.enter_context(wires.wire(seed))
        except wires.Refused as error:
            pytest.skip(f"no network namespaces or TUN devices here: {error}")
        own, far = lab.environment["DATABASE_URL"], wires.listener(wire.far)
        _, url = stack.enter_context(proxied_database(own, far, **options))
        stack.callback(lab.close)
        yield wire, wire.near.within(lambda: lab.worker(*arguments, DATABASE_URL=url))


def test_lost_doubled_and_reordered_packets_lose_no_work(lab: Lab) -> None:
    lab.beat()
    with on_a_wire(lab, "-P", "threads", "-c", "4") as (wire, worker):
        wire.loss, wire.doubling, wire.reordering = 0.05, 0.05, 0.05
        runs = [functions.patient.enqueue() for _ in range(4)]
        until(lambda: completed(*runs), "all runs to end", lab)
        for fault in ("lost data", "doubled", "reordered"):
            assert wire.counts[fault] > 0, wire.counts
        assert worker.alive
    assert Account.objects.get(name="ledger").balance == 20


def test_write_sent_before_a_packet_loss_is_void_after_a_takeover(lab: Lab) -> None:
    """TCP delivers it when the network recovers, after another worker took over."""
    with on_a_wire(lab, "-P", "solo") as (wire, cut_off):
        run = functions.gated.enqueue({"limit": "g"})
        until(lambda: labels(run)["g:begin"] == 1, "the body to begin", lab)
        wire.loss = 1
        until(lambda: wire.counts["lost data"] > 0, "packets to be lost", lab)
        another_ends_it(lab, run)
        wire.loss = 0
        again = functions.five_steps.enqueue()
        until(lambda: completed(again), "the first worker to go on", lab)
        assert labels(run)["g:end"] == 2, "the worker continued its body"
        done = Effect.objects.filter(run=str(again.pk))
        assert set(done.values_list("pid", flat=True)) == {cut_off.pid}
    assert Account.objects.get(name="ledger").balance == 1


STATES = {
    "serialization_failure": "40001",
    "deadlock_detected": "40P01",
    "disk_full": "53100",
    "read_only_sql_transaction": "25006",
}


def test_refused_write_of_the_engine_is_no_failure_of_a_step(lab: Lab) -> None:
    """The functions have no retries, so one counted error would fail the run."""
    lab.worker("-P", "solo")
    lab.beat()
    for number, (name, state) in enumerate(STATES.items(), 1):
        with trouble(Step, state, times=4) as refused:
            booked, run = functions.booker.enqueue(), functions.mixed.enqueue()
            until(lambda: completed(run, booked), f"the runs after {name}", lab)  # noqa: B023  # at once
            assert refused.fired == 4, name
        assert Account.objects.get(name="ledger").balance == 6 * number
    assert not FailedAttempt.objects.exists()


def test_body_whose_write_is_refused_is_retried_as_a_whole(
    lab: Lab,
) -> None:
    with trouble(Account, "40P01", times=3, when="UPDATE") as refused:
        lab.worker("-P", "solo")
        lab.beat()
        run = functions.patient.enqueue()
        until(lambda: completed(run), "the run to end", lab)
        assert refused.fired == 3
    told = FailedAttempt.objects.filter(run=run).values_list("error__type", flat=True)
    assert list(told) == ["OperationalError"] * 3
    assert Account.objects.get(name="ledger").balance == 5


def test_too_many_connections_only_delay_work(lab: Lab) -> None:
    with limited_role(2) as role:
        parts = urlsplit(lab.environment["DATABASE_URL"])
        user = f"{role}@{parts.netloc.rpartition('@')[2]}"
        url = parts._replace(netloc=user).geturl()
        worker = lab.worker("-P", "prefork", "-c", "4", DATABASE_URL=url)
        lab.beat()
        runs = [functions.patient.enqueue() for _ in range(8)]
        until(lambda: "too many connections" in worker.text(), "a refusal", lab)
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        until(lambda: completed(*runs), "all runs to end", lab)
        assert worker.alive
        lab.close()
        until(lambda: not backends(), "its connections to end")
    assert Account.objects.get(name="ledger").balance == 40


def test_old_snapshot_stops_nothing(lab: Lab) -> None:
    url = lab.environment["DATABASE_URL"]
    with psycopg.connect(url) as holder:
        holder.isolation_level = IsolationLevel.REPEATABLE_READ
        seen = holder.execute("SELECT count(*) FROM durable_jobs_run").fetchone()
        assert seen == (0,)
        lab.worker("-P", "prefork", "-c", "2")
        lab.beat()
        runs = [functions.five_steps.enqueue() for _ in range(100)]
        until(lambda: completed(*runs), "all runs to end", lab)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT age(backend_xmin) FROM pg_stat_activity WHERE pid = %s",
                [holder.info.backend_pid],
            )
            assert cursor.fetchone()[0] > 500, "the snapshot has kept old rows"
        seen = holder.execute("SELECT count(*) FROM durable_jobs_run").fetchone()
        assert seen == (0,)


def test_worker_opens_two_connections_a_process_and_no_more(lab: Lab) -> None:
    worker = lab.worker("-P", "prefork", "-c", "6")
    lab.beat()
    runs = [functions.patient.enqueue() for _ in range(12)]
    peak = 0

    def done() -> bool:
        nonlocal peak
        peak = max(peak, len(backends()))
        return completed(*runs)

    until(done, "all runs to end", lab)
    processes = set(Effect.objects.values_list("pid", flat=True))
    assert len(processes) > 2
    # Six children with two each, and the main process.
    assert 6 <= peak <= 6 * 2 + 1, worker.text()
