"""``ctx.step.wait_for_callback``: work of an external system, which then answers."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Configure, Later, Start
from tests.engine.failures import Broken


class Outside:
    """An external system that keeps the tokens of its tasks."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.seen: list[Any] = []

    def submit(self, callback: Any) -> None:
        """Accept a task."""
        self.given.append(callback)

    @property
    def token(self) -> str:
        """The token of the last task."""
        return str(self.given[-1].token)

    def asking(self, **options: Any) -> Any:
        """Return a function that submits work and returns the result."""

        def ask(ctx):
            try:
                answer = ctx.step.wait_for_callback("ask", self.submit, **options)
                self.seen.append(("answered", answer))
            except (durable.CallbackFailed, durable.CallbackTimeout) as error:
                self.seen.append((type(error).__name__, error.error_type, str(error)))
            ctx.step.sleep("nap", "1d")
            return list(self.seen[-1])

        return ask

    def settled(self) -> Any:
        """Return what the function saw; fail if the values differ."""
        assert len(self.seen) >= 2
        assert self.seen == [self.seen[0]] * len(self.seen)
        return self.seen[0]


@pytest.fixture
def outside() -> Outside:
    """Return an external system."""
    return Outside()


@pytest.mark.parametrize("data", [None, 7, {"label": [1, 2]}], ids=repr)
def test_callback_returns_the_data_of_its_answer(
    start: Start, later: Later, durable_kit: Kit, outside: Outside, data
):
    run = start(outside.asking())
    assert run.status == "waiting"
    assert run.lease_token is None, "a worker is still busy"
    durable.callbacks.succeed(outside.token, data)

    later(run, "1d")
    assert outside.settled() == ("answered", data)
    assert len(outside.given) == 1, "the work was submitted once"


def test_failure_is_raised(
    start: Start, later: Later, durable_kit: Kit, outside: Outside
):
    run = start(outside.asking())
    durable.callbacks.fail(outside.token, "no stock", error_type="OutOfStock")

    later(run, "1d")
    assert outside.settled() == ("CallbackFailed", "OutOfStock", "no stock")


def test_failure_without_a_message_is_raised_too(
    start: Start, later: Later, durable_kit: Kit, outside: Outside
):
    run = start(outside.asking())
    durable.callbacks.fail(outside.token)

    later(run, "1d")
    assert outside.settled()[:2] == ("CallbackFailed", "CallbackFailed")


def test_timeout_is_raised_and_a_late_answer_is_refused(
    start: Start, later: Later, durable_kit: Kit, outside: Outside
):
    run = later(start(outside.asking(timeout="1h")), "59m")
    assert run.steps.get(name="ask").status == "waiting"
    run = later(run, "1m")
    assert run.steps.get(name="ask").status == "failed"

    with pytest.raises(durable.CallbackClosed):
        durable.callbacks.succeed(outside.token, 1)
    with pytest.raises(durable.CallbackClosed):
        durable.callbacks.fail(outside.token)
    with pytest.raises(durable.CallbackClosed):
        durable.callbacks.heartbeat(outside.token)
    later(run, "1d")
    kind, error_type, message = outside.settled()
    assert kind == error_type == "CallbackTimeout"
    assert "1h" in message


def test_heartbeats_put_its_end_off(
    start: Start, later: Later, durable_kit: Kit, outside: Outside
):
    run = start(outside.asking(heartbeat="10m"))
    for _ in range(5):
        later(run, "9m")
        durable.callbacks.heartbeat(outside.token)
    assert later(run, "9m").steps.get(name="ask").status == "waiting"
    durable.callbacks.succeed(outside.token, "slow but sure")

    later(run, "1d")
    assert outside.settled() == ("answered", "slow but sure")


def test_heartbeat_that_stops_is_a_timeout(
    start: Start, later: Later, durable_kit: Kit, outside: Outside
):
    run = start(outside.asking(heartbeat="10m", timeout="1d"))
    later(run, "9m")
    durable.callbacks.heartbeat(outside.token)
    later(run, "10m")

    with pytest.raises(durable.CallbackClosed):
        durable.callbacks.heartbeat(outside.token)
    later(run, "1d")
    kind, _, message = outside.settled()
    assert kind == "CallbackTimeout"
    assert "heartbeat" in message


def test_heartbeats_do_not_put_off_the_timeout(
    start: Start, later: Later, durable_kit: Kit, outside: Outside
):
    run = start(outside.asking(heartbeat="10m", timeout="15m"))
    later(run, "9m")
    durable.callbacks.heartbeat(outside.token)
    later(run, "6m")
    later(run, "1d")

    assert outside.settled()[0] == "CallbackTimeout"


def test_first_answer_wins(
    start: Start, later: Later, durable_kit: Kit, outside: Outside
):
    run = start(outside.asking())
    durable.callbacks.succeed(outside.token, "first")
    with pytest.raises(durable.CallbackClosed):
        durable.callbacks.succeed(outside.token, "second")

    later(run, "1d")
    assert outside.settled() == ("answered", "first")


def test_answer_during_the_submission_is_not_lost(start: Start):
    def submit(callback):
        durable.callbacks.succeed(callback.token, "at once")

    def asking(ctx):
        return ctx.step.wait_for_callback("ask", submit, timeout="1h")

    assert start(asking).result() == "at once"


def test_answer_after_the_end_of_the_run_is_refused(
    start: Start, durable_kit: Kit, outside: Outside
):
    run = start(outside.asking())
    run.cancel()

    with pytest.raises(durable.CallbackClosed):
        durable.callbacks.succeed(outside.token, 1)


@pytest.mark.parametrize(
    "forge", ["changed", "another step", "garbage", "empty", "None"]
)
def test_forged_token_is_refused(
    start: Start, later: Later, durable_kit: Kit, outside: Outside, forge
):
    run = start(outside.asking())
    token = outside.token
    value, _, signature = token.rpartition(":")
    forged: Any = {
        "changed": token[:-1] + ("A" if token[-1] != "A" else "B"),
        "another step": f"{run.pk.hex}-{'0' * 40}:{signature}",
        "garbage": "garbage",
        "empty": "",
        "None": None,
    }[forge]

    for answer in [
        durable.callbacks.succeed,
        durable.callbacks.fail,
        durable.callbacks.heartbeat,
    ]:
        with pytest.raises(durable.CallbackClosed):
            answer(forged)
    assert value
    assert later(run).steps.get(name="ask").status == "waiting"


def test_token_is_the_same_each_time_the_submission_is_tried(
    start: Start, later: Later, durable_kit: Kit
):
    tokens = []

    def submit(callback):
        tokens.append(callback.token)
        if len(tokens) < 3:
            raise Broken("the other side is away")

    def asking(ctx):
        return ctx.step.wait_for_callback("ask", submit)

    run = later(start(asking, backoff=durable.Backoff.fixed("1s")), "1m")
    assert len(tokens) == 3
    assert len(set(tokens)) == 1
    durable.callbacks.succeed(tokens[0], "answered")

    assert later(run).result() == "answered"


def test_answer_is_accepted_although_the_submission_failed(
    start: Start, later: Later, durable_kit: Kit
):
    """The external system accepted the work, but the response was lost."""
    tokens = []

    def submit(callback):
        tokens.append(callback.token)
        raise Broken("no reply")

    def asking(ctx):
        return ctx.step.wait_for_callback("ask", submit)

    run = start(asking, backoff=durable.Backoff.fixed("1h"))
    durable.callbacks.succeed(tokens[0], "got it")

    assert later(run).result() == "got it"
    assert len(tokens) == 1


def test_submission_that_fails_for_good_fails_the_step(
    start: Start, later: Later, durable_kit: Kit
):
    def submit(callback):
        raise Broken("never")

    def asking(ctx):
        ctx.step.wait_for_callback("ask", submit, timeout="1d")

    run = later(start(asking, retries=1, backoff=durable.Backoff.fixed(1)), "1m")
    assert run.error["type"] == "Broken"
    assert not Wait.objects.exists()


@pytest.mark.parametrize(("when", "submitted"), [("before", 1), ("body", 2)])
def test_worker_that_dies_at_the_submission(
    start: Start, later: Later, durable_kit: Kit, outside: Outside, when, submitted
):
    durable_kit.crash_at("ask", when=when)
    run = later(start(outside.asking()), "61s")
    assert len(outside.given) == submitted
    durable.callbacks.succeed(outside.token, "answered")

    later(run, "1d")
    assert outside.settled() == ("answered", "answered")


def test_callback_without_a_submission_only_waits(
    start: Start, later: Later, durable_kit: Kit
):
    def asking(ctx):
        try:
            ctx.step.wait_for_callback("ask", timeout="1h")
        except durable.CallbackTimeout:
            return "nobody answered"

    assert later(start(asking), "1h").result() == "nobody answered"


def test_url_uses_the_base_url_of_the_settings(
    start: Start, durable_kit: Kit, outside: Outside, configure: Configure
):
    configure(CALLBACK_BASE_URL="https://shop.example/durable/callbacks/")
    start(outside.asking())

    url = outside.given[0].url
    assert url == f"https://shop.example/durable/callbacks/{outside.token}"


def test_data_that_cannot_be_stored_is_refused_at_the_caller(
    start: Start, later: Later, durable_kit: Kit, outside: Outside
):
    run = start(outside.asking())
    with pytest.raises(durable.PayloadError):
        durable.callbacks.succeed(outside.token, object())
    durable.callbacks.succeed(outside.token, "better")

    later(run, "1d")
    assert outside.settled() == ("answered", "better")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"submit": "not a function"}, "callable"),
        ({"timeout": -1}, "timeout"),
        ({"heartbeat": "often"}, "heartbeat"),
        ({"heartbeat": 0}, "heartbeat"),
    ],
    ids=str,
)
def test_wrong_call_is_refused(start: Start, options, expected):
    def mistaken(ctx):
        ctx.step.wait_for_callback("ask", **options)

    run = start(mistaken)
    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]
