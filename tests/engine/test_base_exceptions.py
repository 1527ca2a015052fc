"""Exceptions that are no ``Exception`` fail the attempt, wherever code raises them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django import forms

from durable_jobs import durable
from durable_jobs.control_flow import EngineControl, comes_from_a_signal, is_failure
from durable_jobs.engine.suspend import Suspend
from durable_jobs.expressions import compile_expression
from durable_jobs.testing import Kit
from tests.engine.conftest import Configure, Later, Start

SOON = durable.Backoff.fixed("1s")


class Own(BaseException):
    """A base exception of the project."""


def throw(error: BaseException) -> Any:
    raise error


LEAVING: dict[str, tuple[str, Callable[[], Any]]] = {
    "exit": ("SystemExit", lambda: sys.exit(2)),
    "argparse": ("SystemExit", lambda: ArgumentParser(prog="x").parse_args(["--no"])),
    "cancelled": ("CancelledError", lambda: throw(asyncio.CancelledError("gone"))),
    "generator": ("GeneratorExit", lambda: throw(GeneratorExit())),
    "interrupt": ("KeyboardInterrupt", lambda: throw(KeyboardInterrupt())),
    "own": ("Own", lambda: throw(Own("mine"))),
    "group": (
        "BaseExceptionGroup",
        lambda: throw(BaseExceptionGroup("both", [SystemExit(2), ValueError()])),
    ),
}
each = pytest.mark.parametrize(("name", "leave"), LEAVING.values(), ids=LEAVING)


@each
@pytest.mark.parametrize("where", ["step", "atomic", "timeout", "branch", "function"])
def test_base_exception_in_a_def_function_is_a_failed_attempt(
    start: Start, later: Later, name: str, leave: Callable[[], Any], where: str
):
    calls = []

    def body(*args):
        calls.append(1)
        leave()

    def leaving(ctx):
        options = {"retries": 1, "backoff": SOON}
        if where == "step":
            ctx.step.run("leave", body, **options)
        elif where == "atomic":
            ctx.step.atomic("leave", body)
        elif where == "timeout":
            ctx.step.run("leave", body, timeout="1h", **options)
        elif where == "branch":
            ctx.step.parallel("fork", [body, lambda: 1])
        else:
            body()

    run = later(start(leaving, retries=1, backoff=SOON), "5s")
    assert (run.status, len(calls)) == ("failed", 2)
    expected = "ParallelError" if where == "branch" else name
    assert run.error["type"] == expected
    assert name in run.error["message"] or "in body" in run.error["traceback"]
    assert run.attempts.get().error["type"] == name


@each
@pytest.mark.parametrize("where", ["step", "def step", "branch", "task", "function"])
def test_base_exception_in_an_async_function_is_a_failed_attempt(
    start: Start, later: Later, name: str, leave: Callable[[], Any], where: str
):
    calls = []

    def plain(*args):
        calls.append(1)
        leave()

    async def body(*args):
        plain()

    async def leaving(ctx):
        options = {"retries": 1, "backoff": SOON}
        if where == "step":
            await ctx.step.run("leave", body, **options)
        elif where == "def step":
            await ctx.step.run("leave", plain, **options)
        elif where == "branch":
            await ctx.step.parallel("fork", [body])
        elif where == "task":
            await asyncio.gather(asyncio.create_task(body()))
        else:
            await body()

    run = later(start(leaving, retries=1, backoff=SOON), "5s")
    assert (run.status, len(calls)) == ("failed", 2)
    assert run.error["type"] == ("ParallelError" if where == "branch" else name)
    assert run.attempts.get().error["type"] == name


@each
def test_base_exception_in_an_async_body_of_a_def_function_is_a_failed_attempt(
    start: Start, later: Later, name: str, leave: Callable[[], Any]
):
    async def body():
        leave()

    def leaving(ctx):
        ctx.step.run("leave", body, retries=1, backoff=SOON)

    run = later(start(leaving), "5s")
    assert (run.status, run.error["type"]) == ("failed", name)
    assert run.attempts.get().error["type"] == name


@each
def test_base_exception_can_be_caught_as_the_failure_of_its_step(
    start: Start, later: Later, name: str, leave: Callable[[], Any]
):
    def catching(ctx):
        try:
            ctx.step.run("leave", leave, retries=0)
        except durable.StepFailed as failed:
            return [failed.error_type, failed.__cause__ is None]

    assert start(catching).result() == [name, True]


@each
def test_base_exception_in_a_condition_is_retried(
    start: Start, later: Later, name: str, leave: Callable[[], Any]
):
    calls = []

    def check(state):
        calls.append(1)
        if len(calls) == 1:
            leave()
        return durable.Done("met")

    def waiting(ctx):
        return ctx.step.wait_for_condition("ask", check, every="1m")

    run = later(start(waiting, retries=1, backoff=SOON), "5s")
    assert run.result() == "met"
    assert run.attempts.get().error["type"] == name


@each
def test_base_exception_in_submit_is_retried(
    start: Start, later: Later, name: str, leave: Callable[[], Any]
):
    tokens = []

    def submit(callback):
        tokens.append(callback.token)
        if len(tokens) == 1:
            leave()

    def waiting(ctx):
        return ctx.step.wait_for_callback("ask", submit)

    run = later(start(waiting, retries=1, backoff=SOON), "5s")
    durable.callbacks.succeed(tokens[1], "answered")
    assert later(run).result() == "answered"
    assert run.attempts.get().error["type"] == name


@each
def test_base_exception_in_a_handler_fails_the_run_of_the_handler(
    start: Start, later: Later, durable_kit: Kit, name: str, leave: Callable[[], Any]
):
    def failing(ctx):
        raise ValueError("first")

    def handler(ctx):
        leave()

    run = later(start(failing, retries=0, on_failure=handler), "1d")
    handled = run.children.get()
    assert (run.status, handled.status) == ("failed", "failed")
    assert handled.error["type"] == name


@each
def test_base_exception_in_a_backoff_fails_the_run_with_its_type(
    start: Start, later: Later, name: str, leave: Callable[[], Any]
):
    def failing(ctx):
        raise ValueError("first")

    run = start(failing, backoff=lambda attempt, error: leave())
    assert (run.status, run.error["type"]) == ("failed", "ConfigurationError")
    assert name in run.error["message"]


@each
def test_base_exception_in_a_key_is_an_error_of_the_expression(
    name: str, leave: Callable[[], Any]
):
    expression = compile_expression(
        lambda event: leave(), where="key", variables=("event",)
    )
    for call in (expression.evaluate, expression.test):
        with pytest.raises(durable.DurableError, match=name):
            call({"event": None})


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="there are no signals")
def test_exception_of_a_signal_handler_in_a_body_is_no_failure_of_the_body(
    start: Start, later: Later
):
    calls = []

    def handler(signum, frame):
        sys.exit(-signum)

    def body():
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)

    def leaving(ctx):
        ctx.step.run("leave", body, retries=0)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(SystemExit):
            start(leaving)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("where", ["step", "async"])
def test_ctrl_c_interrupts_the_kit(start: Start, where: str):
    def body():
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(60)

    def stepping(ctx):
        ctx.step.run("leave", body, retries=0)

    async def awaiting(ctx):
        await ctx.step.run("leave", body, retries=0)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        start(stepping if where == "step" else awaiting)
    assert signal.getsignal(signal.SIGINT) is before


def test_exception_of_a_signal_is_recognized_by_its_frame():
    def handler(*args):
        raise Own

    @contextmanager
    def handled(number: int) -> Iterator[None]:
        before = signal.signal(number, handler)
        try:
            yield
        finally:
            signal.signal(number, before)

    def caught(call: Callable[[], Any]) -> BaseException:
        with pytest.raises(Own) as found:
            call()
        return found.value

    with handled(signal.SIGTERM):
        assert comes_from_a_signal(caught(lambda: signal.raise_signal(signal.SIGTERM)))
    with handled(signal.SIGALRM):  # the program sends itself this signal
        error = caught(lambda: signal.raise_signal(signal.SIGALRM))
        assert not comes_from_a_signal(error)
    error = caught(lambda: handler(signal.SIGTERM, None))
    assert not comes_from_a_signal(error)


def test_suspension_beside_other_errors_in_a_group_is_a_suspension(
    start: Start, later: Later
):
    def grouping(ctx):
        try:
            ctx.step.sleep("nap", "1h")
        except BaseException as error:  # noqa: BLE001  # the case under test
            raise BaseExceptionGroup("both", [error, ValueError()]) from None
        return "done"

    run = start(grouping)
    assert run.status == "waiting"
    assert later(run, "1h").result() == "done"


@pytest.mark.parametrize("kind", EngineControl.__subclasses__())
def test_exceptions_of_the_engine_itself_are_no_failures(kind: type[BaseException]):
    assert not is_failure(kind())
    assert not is_failure(BaseExceptionGroup("around", [kind(), ValueError()]))
    assert is_failure(SystemExit(1))
    assert Suspend in EngineControl.__subclasses__()


class LeavingForm(forms.Form):
    """A form that raises while it validates."""

    def clean(self) -> dict[str, Any]:
        sys.exit(2)


def test_form_that_exits_leaves_the_step_waiting(start: Start, durable_kit: Kit):
    def asking(ctx):
        ctx.step.approve("ask", title="?", permission="auth.add_user", form=LeavingForm)

    run = start(asking)
    with pytest.raises(durable.PayloadError, match="LeavingForm failed"):
        durable_kit.approve("ask", {})
    run.refresh_from_db()
    assert run.status == "waiting"


def test_base_exception_in_a_branch_thread_is_a_failed_attempt(
    start: Start, configure: Configure
):
    def leaving(ctx):
        results = ctx.step.map(
            "each", lambda item: sys.exit(item), [3, 4], return_exceptions=True
        )
        return [one.error_type for one in results]

    assert start(leaving, retries=0).result() == ["SystemExit"] * 2
