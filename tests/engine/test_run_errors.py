"""``ctx.step.run``: an error is the same in the first run and in every replay."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused


def describe(error: BaseException) -> tuple[object, ...]:
    assert isinstance(error, durable.StepFailed)
    cause = error.__cause__
    told = (type(cause), str(cause)) if cause is not None else None
    return type(error), str(error), error.error_type, error.message, told


def test_error_is_the_same_in_the_first_run_and_in_replay(start: Start, later: Later):
    seen = []

    def body():
        raise Refused("the card was declined")

    def catching(ctx):
        try:
            ctx.step.run("charge", body, retries=0)
        except durable.StepFailed as error:
            seen.append(describe(error))
        ctx.step.sleep("nap", "1h")
        return "went on"

    assert later(start(catching), "1h").result() == "went on"
    assert len(seen) >= 2
    assert set(seen) == {
        (
            durable.StepFailed,
            "the card was declined",
            "Refused",
            "the card was declined",
            (Refused, "the card was declined"),
        )
    }


@pytest.mark.parametrize(
    "error",
    [KeyError("sku"), ValueError("of two", 2), Refused(), OSError(2, "gone")],
    ids=repr,
)
def test_cause_reads_as_the_original_did(start: Start, later: Later, error):
    seen = []

    def body():
        raise error

    def catching(ctx):
        try:
            ctx.step.run("fail", body, retries=0)
        except durable.StepFailed as failed:
            cause = failed.__cause__
            seen.append((type(cause), str(cause)))
        ctx.step.sleep("nap", 1)

    later(start(catching), 1)

    assert len(seen) >= 2
    assert set(seen) == {(type(error), str(error))}


def test_cause_of_an_error_that_cannot_be_imported_is_left_out(
    start: Start, later: Later
):
    seen = []

    class Local(Exception):
        pass

    def body():
        raise Local("nobody can import me")

    def catching(ctx):
        try:
            ctx.step.run("fail", body, retries=0)
        except durable.StepFailed as error:
            seen.append(describe(error))
        ctx.step.sleep("nap", 1)

    later(start(catching), 1)

    message = "nobody can import me"
    assert set(seen) == {(durable.StepFailed, message, "Local", message, None)}


def test_run_fails_with_the_error_of_its_step(start: Start):
    def body():
        raise Refused("no")

    def failing_run(ctx):
        ctx.step.run("charge", body, retries=0)

    run = start(failing_run)

    assert run.status == "failed"
    assert (run.error["type"], run.error["message"]) == ("Refused", "no")
    assert "in body" in run.error["traceback"] or "Refused" in run.error["traceback"]
    with pytest.raises(durable.RunFailed, match="Refused: no"):
        run.result()


def test_error_of_a_run_has_neither_class_nor_arguments_of_the_exception(start: Start):
    def failing(ctx):
        raise KeyError("card", 4242)

    error = start(failing, retries=0).error
    assert sorted(error) == ["message", "traceback", "type"]


def test_error_without_a_readable_message_is_recorded(start: Start):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    def body():
        raise Mute

    def muted(ctx):
        ctx.step.run("fail", body, retries=0)

    assert start(muted).error["type"] == "Mute"


def test_error_with_text_that_no_database_stores_is_stored(start: Start):
    def body():
        raise Refused("nul \x00 and surrogate \ud800")

    def failing_run(ctx):
        ctx.step.run("fail", body, retries=0)

    run = start(failing_run)
    assert run.status == "failed"
    assert run.error["message"].startswith("nul ")
