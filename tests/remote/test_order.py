"""The order of an app's steps, their attempts, and the context sent to the app."""

from __future__ import annotations

import socket
import threading
from datetime import timedelta
from typing import Any

import pytest

from durable_jobs import durable, remote
from durable_jobs.conf import settings
from durable_jobs.models import Run
from durable_jobs.remote import driver, signing
from durable_jobs.testing import Kit
from tests.remote.conftest import Call
from tests.remote.elsewhere import (
    SDK,
    Answer,
    Elsewhere,
    at,
    http,
    json_reply,
    op,
    ran,
    returns,
    signed,
)

OLD = {"x_inngest_req_version": "1"}


def contexts(app: Elsewhere) -> list[dict[str, Any]]:
    """Return the run's context in the requests for no step in particular."""
    plain = [r for r in app.requests if r.query["stepId"] == "step"]
    return [request.body["ctx"] for request in plain]


def test_app_chooses_the_version(app: Elsewhere, call: Call):
    app.answers(returns(1))

    call()

    assert app.requests[0].body["version"] == -1
    assert "fn_id" not in app.requests[0].body["ctx"], "some SDKs need a UUID here"


def test_older_sdk_is_asked_again_when_any_of_its_steps_has_ended(
    app: Elsewhere, call: Call, later: Call
):
    sleep = op("Sleep", "nap", opts={"duration": "1h"})
    app.answers(
        at(op("StepPlanned", "one"), sleep, **OLD),
        at(op("StepPlanned", "two"), sleep, **OLD),
        at(sleep, **OLD),
    )
    app.runs("one", ran("one", 1))
    app.runs("two", ran("two", 2))

    run = call()

    assert {step.name for step in run.steps.filter(status="completed")} == {
        "one",
        "two",
    }
    app.answers(returns("done"))
    assert later(run, "1h").result() == "done"


def test_newer_sdk_reports_when_its_function_has_returned(app: Elsewhere, call: Call):
    app.answers(ran("one", 1), at(op("RunComplete", "end", data={"sum": 3})))

    assert call().result() == {"sum": 3}


def test_results_are_sent_in_the_order_of_their_ends(
    kit: Kit, app: Elsewhere, call: Call, later: Call
):
    slow = op("Sleep", "slow", opts={"duration": "2h"})
    quick = op("Sleep", "quick", opts={"duration": "1h"})
    app.answers(at(slow, quick, **OLD))
    run = call()
    app.answers(at(slow, **OLD))
    run = later(run, "1h")
    app.answers(returns("quick"))

    assert later(run, "1h").result() == "quick"
    assert contexts(app)[-1]["stack"] == {
        "stack": [quick["id"], slow["id"]],
        "current": 2,
    }


def test_step_is_not_run_before_its_next_attempt_is_due(
    kit: Kit, app: Elsewhere, call: Call, later: Call
):
    error = {"name": "TypeError", "message": "no"}
    app.answers(at(op("StepError", "one", error=error)))
    run = call(backoff=durable.Backoff.fixed("1h"))
    run.pause()
    run.resume()
    app.answers(at(op("StepPlanned", "one")))
    later(run, "1m")
    assert contexts(app)[1]["disable_immediate_execution"] is True
    assert contexts(app)[1]["attempt"] == 0

    app.answers(ran("one", 1), returns("done"))
    assert later(run, "1h").result() == "done"
    assert contexts(app)[2]["disable_immediate_execution"] is False
    assert contexts(app)[2]["attempt"] == 1


def test_failures_of_the_function_are_not_charged_to_later_steps(
    app: Elsewhere, call: Call, later: Call
):
    app.answers(http(503), ran("one", 1), ran("two", 2), returns("done"))

    run = later(call(retries=1), "10s")

    assert run.result() == "done"
    assert [c["attempt"] for c in contexts(app)] == [0, 1, 0, 0]


@pytest.mark.parametrize("name", ["0123456789abcdef" * 2 + "01234567", "#" + "a" * 40])
def test_step_may_be_called_like_a_hash(app: Elsewhere, call: Call, name: str):
    step = op("StepRun", name, data=1)
    app.answers(at(step), returns("done"))

    run = call()

    assert run.result() == "done"
    assert app.requests[1].body["steps"] == {step["id"]: {"data": 1}}


def test_step_whose_id_is_no_hash_is_invalid(app: Elsewhere, call: Call):
    app.answers(at(op("StepRun", "one", data=1) | {"id": "one"}))

    assert call(retries=0).error["type"] == "BadAnswer"


def test_steps_beyond_the_limit_of_a_run_are_refused(app: Elsewhere, call: Call):
    count = settings.MAX_STEPS + 1
    app.answers(at(*(op("StepPlanned", f"step {n}") for n in range(count))))

    run = call()

    assert (run.status, run.error["type"]) == ("failed", "LimitExceeded")


def test_parallel_steps_wait_outside_of_the_apps_timeout(
    app: Elsewhere, call: Call, monkeypatch: pytest.MonkeyPatch
):
    """Each batch of them takes more than half of the timeout."""
    monkeypatch.setattr(driver, "WIDTH", 4)
    together, most, lock = [0], [0], threading.Lock()

    def slowly(name: str) -> Answer:
        def answer(peer: socket.socket) -> None:
            with lock:
                together[0] += 1
                most[0] = max(most[0], together[0])
            threading.Event().wait(0.6)
            with lock:
                together[0] -= 1
            ran(name, name)(peer)

        return answer

    names = [f"step {n}" for n in range(12)]
    app.answers(at(*(op("StepPlanned", name) for name in names)), returns("done"))
    for name in names:
        app.runs(name, slowly(name))

    run = call(timeout="1s", retries=0)

    assert run.result() == "done"
    assert most[0] <= 4


def test_error_of_the_app_does_not_end_steps_in_flight(
    app: Elsewhere, call: Call, later: Call
):
    asked = threading.Event()
    planned = [
        op("StepPlanned", name, opts={"parallelMode": "race"})
        for name in ("long", "quick")
    ]

    def long(peer: socket.socket) -> None:
        assert asked.wait(10), "no request after the quick step"
        ran("long", 1)(peer)

    def busy(peer: socket.socket) -> None:
        http(503)(peer)
        asked.set()

    app.answers(at(*planned), busy, returns("done"))
    app.runs("long", long)
    app.runs("quick", ran("quick", 2))

    run = call()

    assert {step.name: step.output for step in run.steps.all()} == {
        "long": 1,
        "quick": 2,
    }
    assert later(run, "10s").result() == "done"


def test_extra_fields_of_an_error_are_sent_back_to_the_app(app: Elsewhere, call: Call):
    error = {
        "name": "Declined",
        "message": "no",
        "stack": "line 1",
        "data": {"code": 7},
        "cause": {"name": "Bank", "message": "closed"},
    }
    app.answers(at(op("StepFailed", "pay", error=error)), returns("caught"))

    run = call()

    assert app.requests[1].body["steps"][run.steps.get().key]["error"] == error


def test_event_is_sent_with_its_user_and_version(kit: Kit, app: Elsewhere):
    function = remote.App("billing", app.url).function(
        "work", on=durable.Event("billing/asked")
    )
    app.answers(returns(1), returns(2))

    kit.send("billing/asked", {"n": 1}, user={"id": 7}, v="2")
    kit.run_until_idle()
    function.enqueue({"n": 2})
    kit.run_until_idle()

    sent, called = (request.body["event"] for request in app.requests)
    assert (sent["name"], sent["user"], sent["v"]) == ("billing/asked", {"id": 7}, "2")
    assert called["name"] == "inngest/function.invoked"


@pytest.mark.parametrize(
    ("written", "length"),
    [
        ("59m59s999ms775us807ns", timedelta(minutes=59, seconds=59.999776)),
        ("1.5h", timedelta(minutes=90)),
        ("1d2h", timedelta(hours=26)),
        ("7µs", timedelta(microseconds=7)),
    ],
)
def test_times_in_the_format_of_go_are_read(
    kit: Kit, app: Elsewhere, call: Call, written: str, length: timedelta
):
    app.answers(at(op("Sleep", "nap", opts={"duration": written})))

    assert call().steps.get().due_at - kit.now() == length


def test_time_that_is_past_is_now(app: Elsewhere, call: Call):
    app.answers(at(op("Sleep", "nap", opts={"duration": "-3s"})), returns("done"))

    assert call().result() == "done"


def test_signature_inside_a_streamed_response_counts_too(kit: Kit, app: Elsewhere):
    key, now = "signkey-test-00", int(kit.now().timestamp())

    def streamed(signed_with: str) -> Answer:
        signature = signing.signature(b"7", signed_with, now)
        inner = {"status": 200, "headers": SDK | {signing.HEADER: signature}}
        return json_reply(201, inner | {"body": "7"})

    app.answers(streamed("signkey-test-11"), streamed(key))
    function = remote.App("billing", app.url, signing_key=key).function(
        "work", backoff=durable.Backoff.fixed("1s")
    )

    run = function.enqueue()
    kit.run_until_idle()
    assert Run.objects.get().status == "queued", "the first response was refused"
    kit.advance("1s")
    run.refresh_from_db()
    assert run.result() == 7


@pytest.mark.parametrize("keys", [None, "signkey-test-00"])
def test_number_without_a_canonical_form_fails_only_signed_apps(
    kit: Kit, app: Elsewhere, keys: str | None
):
    steps = [op("StepRun", "one", data=10**309)]
    app.answers(json_reply(206, steps) if keys is None else signed(keys, 206, steps))
    if keys is None:
        app.answers(returns("done"))
    run = remote.App("billing", app.url, signing_key=keys).function("work").enqueue()

    kit.run_until_idle()

    run.refresh_from_db()
    assert run.status == ("completed" if keys is None else "failed")
