"""``StepFailed.__cause__`` is complete or None, and tracebacks begin in bodies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from durable_jobs import durable
from durable_jobs.engine.errors import describe_error, rebuild
from tests.engine.conftest import Later, Start


class ApiError(Exception):
    """An error that takes two arguments and keeps them."""

    def __init__(self, code: int, body: str) -> None:
        super().__init__(code, body)
        self.code = code
        self.body = body

    def __str__(self) -> str:
        return f"{self.code}: {self.body}"


class Reduced(Exception):
    """An error with its own pickle support."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self) -> Any:
        return type(self), (self.code,)


class Forgetful(Exception):
    """An error whose message differs from its arguments."""

    def __init__(self, code: int) -> None:
        super().__init__("it failed")
        self.code = code


class Keyword(Exception):
    """An error that cannot be constructed from its ``args``."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class Loaded(Exception):
    """An error that gets an attribute where it is raised."""


class Exits(Exception):
    """An error that cannot be constructed twice."""

    made = 0

    def __init__(self, text: str) -> None:
        type(self).made += 1
        if type(self).made > 1:
            raise SystemExit(text)
        super().__init__(text)


def loaded() -> Exception:
    error = Loaded("no answer")
    error.response = object()  # type: ignore[attr-defined]
    return error


def noted() -> Exception:
    error = ValueError("noted")
    error.add_note("a note")
    return error


WHOLE: dict[str, Callable[[], Exception]] = {
    "django": lambda: ValidationError("The IBAN is wrong."),
    "subprocess": lambda: subprocess.CalledProcessError(3, "ls"),
    "own": lambda: ApiError(404, "gone"),
    "reduced": lambda: Reduced(7),
    "file": lambda: FileNotFoundError(2, "gone", "a.txt"),
    "key": lambda: KeyError("sku"),
    "none": ValueError,
    "noted": noted,
}
NONE: dict[str, Callable[[], Exception]] = {
    "forgetful": lambda: Forgetful(7),
    "keyword": lambda: Keyword(code=7),
    "loaded": loaded,
    "bytes": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
    "object": lambda: ValueError(object()),
    "exits": lambda: Exits("twice"),
    "group": lambda: ExceptionGroup("both", [ValueError("a")]),
    "large": lambda: ValueError("x" * 10_000),
}


def recorded(make: Callable[[], Exception]) -> durable.DurableError:
    try:
        raise make()
    except Exception as error:  # noqa: BLE001  # the case under test
        record = describe_error(error)
    return rebuild(json.loads(json.dumps(record)), "step", "key")


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_cause_is_equal_to_the_original(make: Callable[[], Exception]):
    original, cause = make(), recorded(make).__cause__
    assert type(cause) is type(original)
    assert (str(cause), cause.args) == (str(original), original.args)
    state = {name: vars(original)[name] for name in vars(original) if name[:2] != "__"}
    assert vars(cause) == state


@pytest.mark.parametrize("make", NONE.values(), ids=NONE)
def test_cause_that_cannot_be_whole_is_left_out(make: Callable[[], Exception]):
    Exits.made = 0
    error = recorded(make)
    assert error.__cause__ is None
    assert error.message


@pytest.mark.parametrize(
    "record",
    [
        {"class": "tests.engine.test_causes:ApiError", "message": "404: gone"},
        {"class": "tests.engine.test_causes:ApiError", "args": [404, "gone"]},
        {"class": "tests.engine.test_causes:WHOLE", "message": "m"},
        {"class": "no.such.module:Gone", "message": "m"},
        {"class": ":", "message": "m"},
        {"class": "builtins:SystemExit", "message": "m"},
        {"class": "builtins:dict", "message": "m"},
    ],
    ids=lambda record: record["class"] + "-args" * ("args" in record),
)
def test_cause_is_left_out_where_the_class_does_not_fit_the_record(
    record: dict[str, Any],
):
    assert rebuild(record, "step", "key").__cause__ is None


@pytest.mark.parametrize("kind", ["ConfigurationError", "Any", "no such thing", "Run"])
def test_record_of_an_unknown_kind_of_error_is_a_step_failed(kind: str):
    error = rebuild({"raise": kind, "message": "m"}, "step", "key")
    assert type(error) is durable.StepFailed


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_cause_can_be_raised_again(
    start: Start, later: Later, make: Callable[[], Exception]
):
    def body():
        raise make()

    def raising(ctx):
        try:
            ctx.step.run("fail", body, retries=0)
        except durable.StepFailed as failed:
            raise (failed.__cause__ or failed) from None

    run = start(raising, retries=0)
    assert run.error["type"] == type(make()).__name__
    assert run.error["message"] == str(make())


def test_traceback_begins_with_the_frames_of_the_body(start: Start):
    def inner():
        raise ApiError(404, "gone")

    def body():
        inner()

    def outer(ctx):
        ctx.step.run("fail", body, retries=0)

    text = start(outer, retries=0).error["traceback"]
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in body")
    assert text.index("in inner") < text.index("ApiError: 404: gone")
    assert text.index("ApiError: 404: gone") < text.index("direct cause")
    assert text.index("direct cause") < text.index("in outer")
    assert lines[-1] == "durable_jobs.exceptions.StepFailed: 404: gone"
    assert "durable_jobs/engine" not in text


def test_frames_of_the_engine_between_two_of_yours_are_one_line(start: Start):
    def branch():
        raise ApiError(404, "gone")

    def outer(ctx):
        ctx.step.wait_for_condition("ask", lambda state: branch(), every="1m")

    def around(ctx):
        with ctx.step.group("inside"):
            ctx.step.run("nested", lambda: ctx.step.sleep("no", "1h"), retries=0)

    text = start(around, retries=0).error["traceback"]
    assert text.count("frames of durable_jobs") == 2, "one line in each traceback"
    text = start(outer, retries=0).error["traceback"]
    assert "in branch" in text
    assert "durable_jobs/engine" not in text
