"""Every exception is recorded, and its run ends, whatever its methods do."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs import durable
from durable_jobs.control_flow import is_failure
from durable_jobs.engine.errors import describe_error, rebuild
from durable_jobs.error_text import MAX_MESSAGE, MAX_TRACEBACK, MAX_TYPE
from tests.engine.conftest import Later, Start
from tests.engine.hostile import CORPUS, OddString, cycle

Make = Callable[[], BaseException]

SOON = durable.Backoff.fixed("1s")

each = pytest.mark.parametrize("make", CORPUS.values(), ids=CORPUS)


def raising(make: Make, calls: list[int]) -> Callable[..., Any]:
    def body(*args: Any) -> None:
        calls.append(1)
        raise make()

    return body


def araising(make: Make, calls: list[int]) -> Callable[..., Any]:
    async def body(*args: Any) -> None:
        calls.append(1)
        raise make()

    return body


def check(record: dict[str, Any]) -> None:
    """Check that the database and the pages can handle a record."""
    assert json.loads(json.dumps(record)) == record
    json.dumps(record, ensure_ascii=False).encode()
    assert 0 < len(record["type"]) <= MAX_TYPE
    assert len(record["message"]) <= MAX_MESSAGE
    assert len(record["traceback"]) <= MAX_TRACEBACK
    assert "\x00" not in json.dumps(record, ensure_ascii=False)


@each
def test_describe_returns_a_record_of_any_exception(make: Make):
    try:
        raise make()
    except BaseException as error:  # noqa: BLE001  # the case under test
        record = describe_error(error)
    check(record)
    assert rebuild(record, "step", "key").message is not None


@given(st.data())
def test_describe_returns_a_record_of_any_mixture(data: st.DataObject):
    names = st.sampled_from(sorted(CORPUS))
    texts = st.text(st.characters(codec=None, exclude_categories=[]))

    def leaf() -> BaseException:
        if data.draw(st.booleans()):
            return CORPUS[data.draw(names)]()
        values = [texts, st.integers(), st.binary(), texts.map(OddString)]
        return ValueError(*data.draw(st.lists(st.one_of(*values), max_size=4)))

    error = leaf()
    for _ in range(data.draw(st.integers(0, 4))):
        other = leaf()
        how = data.draw(st.sampled_from(["cause", "context", "group", "raise"]))
        if how == "cause":
            BaseException.__dict__["__cause__"].__set__(other, error)
        elif how == "context":
            BaseException.__dict__["__context__"].__set__(other, error)
        elif how == "group":
            other = BaseExceptionGroup("of two", [other, error])
        else:
            try:
                raise other
            except BaseException as caught:  # noqa: BLE001  # the case under test
                other = caught
        error = other
    assert is_failure(error)
    check(describe_error(error))


@each
def test_body_that_raises_anything_fails_after_its_retries(
    start: Start, later: Later, make: Make
):
    calls: list[int] = []

    def failing(ctx):
        ctx.step.run("fail", raising(make, calls), retries=1, backoff=SOON)

    run = later(start(failing, retries=0), "5s")
    assert (run.status, len(calls)) == ("failed", 2)
    check(run.error)
    assert [attempt.number for attempt in run.attempts.all()] == [0]


@each
def test_function_that_raises_anything_fails_after_its_retries(
    start: Start, later: Later, make: Make
):
    calls: list[int] = []

    def failing(ctx):
        raising(make, calls)()

    run = later(start(failing, retries=1, backoff=SOON), "5s")
    assert (run.status, len(calls)) == ("failed", 2)
    check(run.error)


@each
def test_async_function_that_raises_anything_fails_after_its_retries(
    start: Start, later: Later, make: Make
):
    calls: list[int] = []

    async def failing(ctx):
        with pytest.raises(durable.StepFailed):
            await ctx.step.run("fail", araising(make, calls), retries=0)
        raise make()

    run = later(start(failing, retries=1, backoff=SOON), "5s")
    assert (run.status, len(calls)) == ("failed", 1)
    check(run.error)


@each
def test_logging_a_hostile_exception_breaks_nothing(
    make: Make, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    for name in ("durable_jobs", "durable_jobs.run"):
        try:
            raise make()
        except BaseException:  # the case under test
            logging.getLogger(name).exception("It went wrong.")
    assert [record.message for record in caplog.records] == ["It went wrong."] * 2
    assert "Logging error" not in capsys.readouterr().err


def test_cycle_of_causes_is_described_once():
    record = describe_error(cycle())
    assert record["traceback"].count("ValueError: first") == 1
    assert "earlier exceptions are left out" in record["traceback"]


def test_truncated_traceback_keeps_both_ends():
    def go(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 3_000) from ValueError("first " + "y" * 20_000)
        go(depth - 1)

    try:
        go(200)
    except ValueError as error:
        text = describe_error(error)["traceback"]
    assert text.startswith("ValueError: first")
    assert text.endswith("x\n")
