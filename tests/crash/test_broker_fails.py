"""The broker is flushed, killed, silent or full of garbage; every run still ends."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from contextlib import ExitStack

import pytest

from durable_jobs.models import Run
from durable_jobs.worker.celery_app import TICK, WORK
from tests.lab import durable as functions
from tests.lab.brokers import flush, own_broker, publish
from tests.lab.models import Account, Effect, Gate
from tests.lab.processes import ROOT, Lab, Process, until
from tests.lab.proxy import proxied_broker
from tests.lab.watching import completed, labels

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def test_broker_that_is_flushed_all_the_time_loses_no_work(lab: Lab) -> None:
    lab.worker("-P", "prefork", "-c", "2")
    lab.beat()
    runs, thrown = [], 0
    for _ in range(10):
        runs += [functions.mixed.enqueue() for _ in range(3)]
        thrown += flush(lab.environment["BROKER_URL"])
        some = 2 * len(runs)
        until(lambda some=some: Effect.objects.count() > some, "some steps", lab)
    assert thrown > 0
    until(lambda: completed(*runs), "all runs to end", lab)
    assert Account.objects.get(name="ledger").balance == len(runs)


def test_broker_that_was_away_for_long_is_found_again(lab: Lab) -> None:
    with own_broker() as broker:
        worker = lab.worker("-P", "prefork", "-c", "2", BROKER_URL=broker.url)
        beat = lab.beat(BROKER_URL=broker.url)
        before = functions.five_steps.enqueue()
        until(lambda: completed(before), "the worker to work", lab)
        under_way = functions.patient.enqueue()
        until(lambda: labels(under_way), "the run to begin", lab)
        broker.stop()
        # The worker continues claimed runs without the broker.
        until(lambda: completed(under_way), "the run to end", lab)
        waiting = [functions.mixed.enqueue() for _ in range(5)]
        until(lambda: worker.text().count("Trying again") > 1, "some attempts", lab)
        broker.start()
        until(lambda: completed(*waiting), "all runs to end", lab)
        assert worker.alive
        assert beat.alive
        lab.close()


SENDER = """
import sys, threading
import django
django.setup()
from tests.lab import durable as functions
functions.mixed.enqueue()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(2):
    threads = [threading.Thread(target=functions.mixed.enqueue) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("sent", flush=True)
"""


def test_senders_wait_for_no_broker_that_has_stopped(lab: Lab) -> None:
    """Each process has used its connection before, and each thread sends twice."""
    with own_broker() as broker, ExitStack() as stack:
        environment = {**lab.environment, "BROKER_URL": broker.url}
        senders = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SENDER],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        for sender in senders:
            stack.callback(sender.kill)
            assert sender.stdout is not None
            assert sender.stdout.readline() == "ready\n"
        broker.freeze()
        for sender in senders:
            # A sender that waits for the broker ends only at the test's time limit.
            said, _ = sender.communicate("go\n")
            assert (said, sender.returncode) == ("sent\n", 0)
        broker.thaw()
        assert Run.objects.count() == 14
        lab.worker(BROKER_URL=broker.url)
        lab.beat(BROKER_URL=broker.url)
        until(lambda: completed(*Run.objects.all()), "all runs to end", lab)
        lab.close()


def until_it_leaves(deaf: Process, lab: Lab) -> list[Run]:
    """Leave runs queued for a worker until it exits, and return the runs."""
    runs = [functions.five_steps.enqueue()]

    def left() -> bool:
        if completed(runs[-1]):  # the worker was still looking for more
            runs.append(functions.five_steps.enqueue())
        return not deaf.alive

    until(left, "it to end", lab)
    assert deaf.ended() == os.EX_UNAVAILABLE, deaf.text()
    return runs


def test_worker_without_messages_exits_to_be_restarted(lab: Lab) -> None:
    """Its connection is dead, and only silence shows it."""
    with proxied_broker(lab.environment["BROKER_URL"]) as (proxy, url):
        deaf = lab.worker(BROKER_URL=url, LAB_PATROL="0.5,1,2")
        before = functions.five_steps.enqueue()
        until(lambda: completed(before), "the worker to work", lab)
        assert proxy.silence() > 0
        runs = until_it_leaves(deaf, lab)
        assert proxy.counts["lost"] > 0
        assert "receives no messages" in deaf.text()
        lab.worker(BROKER_URL=url, LAB_PATROL="0.5,1,2")
        until(lambda: completed(*runs), "all runs to end", lab)
        lab.close()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_busy_worker_exits_after_its_broker_fell_silent(lab: Lab, pool: str) -> None:
    """The main process is stuck in the connection and never sees the run end."""
    with proxied_broker(lab.environment["BROKER_URL"]) as (proxy, url):
        deaf = lab.worker("-P", pool, "-c", "1", BROKER_URL=url, LAB_PATROL="0.5,1,2")
        run = functions.gated.enqueue({"limit": "g"})
        until(lambda: labels(run)["g:begin"], "the body to begin", lab)
        assert proxy.silence() > 0
        until(lambda: proxy.counts["lost"], "a heartbeat to be lost", lab)
        assert deaf.alive
        Gate.objects.create(name="g")
        until(lambda: completed(run), "the reserved tasks to end", lab)
        runs = until_it_leaves(deaf, lab)
        assert labels(run) == {"one": 1, "g:begin": 1, "g:end": 1, "last": 1}
        lab.worker(BROKER_URL=url)
        until(lambda: completed(*runs), "all runs to end", lab)
        lab.close()


def test_idle_and_busy_workers_do_not_count_as_unreachable(
    lab: Lab,
) -> None:
    worker = lab.worker("-P", "solo", LAB_PATROL="0.2,60,0.5")
    # All ready runs are old, and a busy worker receives no wake-up.
    runs = [functions.patient.enqueue() for _ in range(4)]
    until(lambda: completed(*runs), "all runs to end", lab)
    assert worker.alive
    later = functions.sleeper.enqueue({"seconds": 2})
    lab.beat()
    until(lambda: completed(later), "the sleep to end", lab)
    assert worker.alive, worker.text()


def test_workers_tick_without_a_beat(lab: Lab) -> None:
    worker = lab.worker("-P", "prefork", "-c", "1", LAB_PATROL="0.3,1,60")
    beat = lab.beat()
    run = functions.mixed.enqueue()
    until(lambda: completed(run), "the run to end", lab)
    beat.kill()
    # The worker has reserved nothing and has set no timer.
    runs = [functions.mixed.enqueue() for _ in range(3)]
    flush(lab.environment["BROKER_URL"])
    until(lambda: completed(*runs), "all runs to end", lab)
    assert not beat.alive
    assert worker.alive


def test_duplicate_late_shuffled_and_invalid_messages_do_nothing_twice(
    lab: Lab,
) -> None:
    url = lab.environment["BROKER_URL"]
    runs = [functions.mixed.enqueue() for _ in range(10)]
    real = [(WORK, ["default", 0.0]), (TICK, [])]
    nonsense = [
        (WORK, ["no-such-queue", 0.0]),
        (WORK, [{"queue": "default"}, 0.0]),
        (WORK, ["default", "yesterday"]),
        ("durable_jobs.of_another_release", [1]),
    ]
    messages = (real + nonsense) * 5
    seed = random.randrange(10**6)  # noqa: S311  # no secret
    print("seed", seed)
    random.Random(seed).shuffle(messages)  # noqa: S311  # no secret
    publish(url, messages)
    worker = lab.worker("-P", "prefork", "-c", "2")
    lab.beat()
    until(lambda: completed(*runs), "all runs to end", lab)
    late = messages[:10] * 2
    publish(url, late)
    after = functions.mixed.enqueue()
    until(lambda: completed(after), "the run after them", lab)
    assert worker.text().count("unregistered task") >= 5
    assert all(labels(run) == {"one": 1, "last": 1} for run in [*runs, after])
    assert Account.objects.get(name="ledger").balance == 11
