"""Workers die or freeze while a remote app executes a step for them."""

from __future__ import annotations

import signal
import socket
import threading

import pytest

from durable_jobs.models import Step
from tests.crash.test_real_workers import DOOMED
from tests.lab import durable as functions
from tests.lab.processes import Lab, until
from tests.lab.watching import ended
from tests.remote.elsewhere import Answer, elsewhere, ran, returns

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]


class Held:
    """A response that is delayed until the test releases it."""

    def __init__(self, answer: Answer) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()
        self.gone = threading.Event()
        self._answer = answer

    def __call__(self, peer: socket.socket) -> None:
        """Record the request, wait, and respond."""
        self.asked.set()
        self.go.wait(60)
        try:
            self._answer(peer)
        finally:
            self.gone.set()


def test_worker_killed_during_a_request_repeats_no_recorded_step(
    lab: Lab,
) -> None:
    held = Held(ran("two", "for the dead"))
    with elsewhere() as app:
        app.answers(ran("one", 1), held, ran("two", 2), returns("done"))
        doomed = lab.worker(LAB_ELSEWHERE=app.url, **DOOMED)
        run = functions.served.enqueue()
        until(held.asked.is_set, "the app to be asked for step two", lab)
        doomed.kill()
        held.go.set()
        lab.worker(LAB_ELSEWHERE=app.url)
        lab.beat()
        until(lambda: ended(run), "the run to end", lab)

        known = app.requests[2].body["steps"]
        assert (app.left, len(app.requests)) == (0, 4)
    run.refresh_from_db()
    assert run.result() == "done"
    steps = Step.objects.filter(run=run).order_by("position")
    assert [step.output for step in steps] == [1, 2]
    assert known == {steps[0].key: {"data": 1}}


def test_response_to_a_worker_frozen_past_its_lease_is_void(
    lab: Lab,
) -> None:
    held = Held(ran("one", "for the frozen"))
    with elsewhere() as app:
        app.answers(held, ran("one", 1), returns("done"))
        frozen = lab.worker("-P", "solo", LAB_ELSEWHERE=app.url, **DOOMED)
        run = functions.served.enqueue()
        until(held.asked.is_set, "the app to be asked", lab)
        frozen.signal(signal.SIGSTOP)
        lab.worker(LAB_ELSEWHERE=app.url)
        lab.beat()
        until(lambda: ended(run), "the run to end", lab)
        held.go.set()
        assert held.gone.wait(60), "the response waits in the frozen worker's socket"
        frozen.signal(signal.SIGCONT)
        until(
            lambda: "has taken it over or ended it" in frozen.text(),
            "the worker to notice",
            lab,
        )
    run.refresh_from_db()
    assert run.result() == "done"
    assert Step.objects.get(run=run).output == 1
