"""An app with Inngest's own SDK runs here, step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from durable_jobs import durable, remote
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from tests.remote import served
from tests.remote.conftest import Call

Serve = Callable[..., durable.Function]


@pytest.fixture
def serve(kit: Kit) -> Iterator[Serve]:
    """Declare a function of the app."""
    with served.served(kit.now) as url:
        app = remote.App("billing", url, signing_key=served.KEY)

        def declare(id: str, **options: Any) -> durable.Function:
            options.setdefault("backoff", durable.Backoff.fixed("10s"))
            return app.function(id, **options)

        yield declare


@pytest.fixture
def begin(kit: Kit, serve: Serve) -> Call:
    """Start a function of the app."""

    def start(id: str, data: Any = None, **options: Any) -> Run:
        run = serve(id, **options).enqueue(data)
        kit.run_until_idle()
        run.refresh_from_db()
        return run

    return start


def test_steps_and_sleeps_are_sequential(begin: Call, later: Call):
    run = begin("sequence", {"order": 7})
    assert (run.status, served.done) == ("waiting", ["first"])
    assert later(run, "59m").status == "waiting"

    run = later(run, "1m")

    assert run.result() == {
        "got": ["first", "first again"],
        "from": {"order": 7},
        "run": str(run.pk),
    }
    assert served.done == ["first", "first again"]
    steps = [(step.name, step.kind) for step in run.steps.order_by("position")]
    assert steps == [("first", "run"), ("nap", "sleep"), ("first:1", "run")]


def test_event_starts_a_function_with_its_flow_control(kit: Kit, serve: Serve):
    serve(
        "batch",
        on=durable.Event("billing/batch"),
        batch=durable.Batch(max_size=3, timeout="1m"),
    )

    for number in range(3):
        kit.send("billing/batch", {"number": number})
    kit.run_until_idle()

    assert Run.objects.get().result() == [0, 1, 2]


def test_chains_side_by_side(begin: Call):
    run = begin("chains")

    assert run.result() == ["a1a2", "b1b2"]
    assert set(served.done[:2]) == {"a1", "b1"}, (
        "the second steps wait for all first steps"
    )
    assert set(served.done[2:]) == {"a2", "b2"}


def test_chain_in_a_race_continues_before_the_other_has_begun(begin: Call):
    done = threading.Event()
    served.first["a2"] = served.after["b1"] = done

    run = begin("chains", {"mode": "race"})

    assert run.result() == ["a1a2", "b1b2"]
    assert served.done == ["a1", "a2", "b1", "b2"]


def test_chain_in_a_race_continues_beside_a_sleep(begin: Call, later: Call):
    run = begin("racing")

    assert (run.status, served.done) == ("waiting", ["one", "two"])
    assert later(run, "1h").result() == ["two", None]


def test_wait_ends_with_its_matching_event(kit: Kit, begin: Call, later: Call):
    run = begin("waiting", {"order": 7})

    kit.send("billing/answered", {"order": 8})
    assert later(run, "1m").status == "waiting"
    kit.send("billing/answered", {"order": 7})

    assert later(run, "1m").result() == ["billing/answered", {"order": 7}, True]


def test_wait_ends_without_an_event_on_timeout(begin: Call, later: Call):
    assert later(begin("waiting", {"order": 7}), "1d").result() is None


def test_invoke_reaches_functions_of_the_app_and_of_the_project(
    kit: Kit, serve: Serve, begin: Call
):
    @durable.function(id="shop-triple")
    def triple(ctx: durable.Context) -> int:
        return int(ctx.event.data["number"]) * 3

    serve("double")

    assert begin("invoking").result() == [8, 24]


def test_failed_step_is_retried_and_the_others_are_not(begin: Call, later: Call):
    served.failing["first again"] = 2

    run = later(begin("sequence"), "1h")
    assert run.status == "waiting"

    assert later(run, "20s").status == "completed"
    assert served.done == [
        "first",
        "first again fails",
        "first again fails",
        "first again",
    ]


def test_failed_step_of_several_is_retried_alone(begin: Call, later: Call):
    served.failing["b1"] = 1

    run = later(begin("chains"), "10s")

    assert run.result() == ["a1a2", "b1b2"]
    assert sorted(served.done) == ["a1", "a2", "b1", "b1 fails", "b2"]


def test_permanent_failure_can_be_caught_and_compensated(begin: Call, later: Call):
    served.failing["try"] = 2

    run = later(begin("catching", retries=1), "10s")

    assert run.result() == ["ValueError", "try does not work"]
    assert served.done == ["try fails", "try fails", "undo"]
    failed = run.steps.get(name="try")
    assert failed.error["type"] == "ValueError"
    assert "does not work" in failed.error["traceback"]


def test_uncaught_failure_fails_the_run(begin: Call, later: Call):
    served.failing["first"] = 1

    run = begin("sequence", retries=0)

    assert (run.status, run.error["type"]) == ("failed", "ValueError")
    assert run.error["message"] == "first does not work"


def test_final_error_is_not_retried(begin: Call):
    run = begin("refusing")

    assert (run.status, run.error["type"]) == ("failed", "NonRetriableError")
    assert run.error["message"] == "never"


def test_function_may_choose_its_next_retry(begin: Call, later: Call):
    run = begin("busy")

    assert later(run, "59m").status == "queued"
    assert later(run, "2m").result() == 1


def test_worker_that_dies_repeats_no_step_that_is_recorded(
    kit: Kit, begin: Call, later: Call
):
    kit.crash_at("first", "after")

    run = later(begin("sequence"), "2h")

    assert run.status == "completed"
    assert served.done == ["first", "first again"]


def test_app_that_dies_before_the_record_repeats_only_that_step(
    kit: Kit, begin: Call, later: Call
):
    kit.crash_at("first", "body")

    run = later(begin("sequence"), "2h")

    assert run.status == "completed"
    assert served.done == ["first", "first", "first again"]


@pytest.mark.parametrize(
    "keys", [served.KEY, [served.NEW_KEY, served.KEY], [served.KEY, served.NEW_KEY]]
)
def test_two_keys_of_a_rotation_both_count(kit: Kit, keys: str | list[str]):
    with served.served(kit.now) as url:
        app = remote.App("billing", url, signing_key=keys)
        run = app.function("double").enqueue({"number": 1})
        kit.run_until_idle()
    run.refresh_from_db()

    assert run.result() == 2


def test_app_without_the_key_is_refused(kit: Kit):
    with served.served(kit.now) as url:
        app = remote.App("billing", url, signing_key="signkey-test-00")
        run = app.function("double", retries=0).enqueue({"number": 1})
        kit.run_until_idle()
    run.refresh_from_db()

    assert (run.status, run.error["type"]) == ("failed", "SignatureRefused")
