"""Log lines of runs: failed attempts, failures, pauses and lost workers."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest
from pytest_django import Settings

from durable_jobs import durable
from durable_jobs.logs import FIELDS, RunContextFilter
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from durable_jobs.worker import orphans
from project.shop.models import Tenant

pytestmark = pytest.mark.django_db

SECRET = "4111-1111"


class Log:
    """The records of the logger ``durable_jobs.run``."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def records(self) -> list[Any]:
        return [one for one in self._caplog.records if one.name == "durable_jobs.run"]

    def levels(self) -> list[str]:
        return [one.levelname for one in self.records()]

    def last(self) -> Any:
        return self.records()[-1]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.INFO, logger="durable_jobs.run")
    return Log(caplog)


def charge(order: Any) -> None:
    raise ValueError("the card\nwas declined")


def failing(**options: Any) -> durable.Function:
    @durable.function(id="shop.charge", queue="money", **options)
    def function(ctx):
        ctx.step.run("pay", charge, SECRET)

    return function


def test_failed_attempt_with_a_retry_logs_one_warning(
    durable_kit: Kit, log: Log, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "VERSION": "abc123"}
    tenant = Tenant.objects.create(name="Ada")
    run = failing().enqueue({"card": SECRET, "tenant": tenant})
    durable_kit.run_until_idle()
    (record,) = log.records()
    step = run.steps.get()
    assert record.levelname == "WARNING"
    assert "step 'pay' failed in attempt 1 (next attempt at" in record.getMessage()
    assert record.getMessage().endswith("ValueError: the card was declined")
    assert SECRET not in record.getMessage()
    assert record.exc_info is None
    assert {name: getattr(record, name) for name in FIELDS} == {
        "run_id": str(run.pk),
        "function": "shop.charge",
        "step": "pay",
        "step_key": step.key,
        "attempt": 1,
        "queue": "money",
        "version": "abc123",
        "subject": f"shop.tenant {tenant.pk}",
    }


def test_failed_attempt_has_a_traceback_at_debug(
    durable_kit: Kit, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="durable_jobs.run")
    failing().enqueue()
    durable_kit.run_until_idle()
    assert log.records()[0].exc_info[0] is ValueError


def test_failed_run_logs_one_error_whose_traceback_begins_in_the_function(
    durable_kit: Kit, log: Log
) -> None:
    tenant = Tenant.objects.create(name="Ada")
    run = failing(retries=1).enqueue({"tenant": tenant})
    durable_kit.advance("1d")
    assert log.levels() == ["WARNING", "WARNING", "ERROR"]
    record = log.last()
    assert f"Run {run.pk} of shop.charge failed: ValueError: " in record.getMessage()
    kind, error, trace = record.exc_info
    assert (kind, error.step) == (durable.StepFailed, record.step_key)
    assert trace.tb_frame.f_code.co_name == "function"
    assert (record.step, record.run_id) == ("pay", str(run.pk))
    assert record.subject == f"shop.tenant {tenant.pk}"


class NeedsTwo(Exception):
    """An error that cannot be constructed from its message."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize("error", [ValueError("no"), NeedsTwo("no", "money")])
@pytest.mark.parametrize("replayed", [False, True])
def test_failed_run_is_logged_with_the_frames_of_the_body_that_failed(
    durable_kit: Kit, log: Log, error: Exception, replayed: bool
) -> None:
    def decline() -> None:
        raise error

    @durable.function(id="shop.late", retries=0)
    def late(ctx: durable.Context) -> None:
        try:
            ctx.step.run("pay", decline)
        finally:
            if replayed:
                ctx.step.sleep("think", "1h")

    late.enqueue()
    durable_kit.advance("1d")
    record = log.last()
    assert record.levelname == "ERROR"
    text = logging.Formatter().format(record)
    assert "in decline" in text
    assert "in late" in text
    assert text.rstrip().endswith(f"StepFailed: {error}")
    cause = record.exc_info[1].__cause__
    if isinstance(error, ValueError) and not replayed:
        frames = traceback.extract_tb(cause.__traceback__)
        assert [one.name for one in frames][-1] == "decline"


def test_function_that_raises_is_logged_as_its_steps_are(
    durable_kit: Kit, log: Log
) -> None:
    @durable.function(id="shop.broken", retries=1)
    def broken(ctx):
        raise KeyError("price")

    broken.enqueue()
    durable_kit.advance("1d")
    assert log.levels() == ["WARNING", "ERROR"]
    assert "the function failed in attempt 1" in log.records()[0].getMessage()
    assert (log.last().attempt, log.last().step) == (2, "")
    assert log.last().exc_info[2].tb_frame.f_code.co_name == "broken"


def test_failed_run_is_logged_by_async_functions_too(
    durable_kit: Kit, log: Log
) -> None:
    @durable.function(id="shop.soon", retries=1)
    async def soon(ctx):
        await ctx.step.run("pay", charge, SECRET)

    soon.enqueue()
    durable_kit.advance("1d")
    assert log.levels() == ["WARNING", "WARNING", "ERROR"]


@pytest.mark.parametrize("kind", ["atomic", "wait_for_condition", "wait_for_callback"])
def test_each_kind_of_step_warns_of_its_failed_attempts(
    durable_kit: Kit, log: Log, kind: str
) -> None:
    options: dict[str, Any] = {"every": "1m"} if kind == "wait_for_condition" else {}

    @durable.function(id="shop.charge", retries=1)
    def function(ctx):
        given = () if options or kind != "atomic" else (SECRET,)
        getattr(ctx.step, kind)("pay", charge, *given, **options)

    function.enqueue()
    durable_kit.advance("1h")
    assert log.levels() == ["WARNING", "WARNING", "ERROR"]
    assert [one.attempt for one in log.records()[:2]] == [1, 2]
    assert {one.step for one in log.records()} == {"pay"}


def test_branch_that_fails_with_its_step_is_logged_once(
    durable_kit: Kit, log: Log
) -> None:
    @durable.function(id="shop.many", retries=0)
    def many(ctx):
        ctx.step.parallel("all", {"a": lambda: ctx.step.run("pay", charge, SECRET)})

    many.enqueue()
    durable_kit.run_until_idle()
    assert log.levels() == ["WARNING", "ERROR"]


def test_invoked_run_that_fails_is_a_warning_and_its_parent_an_error(
    durable_kit: Kit, log: Log
) -> None:
    child = failing(retries=0)

    @durable.function(id="shop.parent", retries=0)
    def parent(ctx):
        ctx.step.invoke("child", child)

    parent.enqueue()
    durable_kit.run_until_idle()
    ends = [one for one in log.records() if " failed: " in one.getMessage()]
    assert [(one.levelname, one.function) for one in ends] == [
        ("WARNING", "shop.charge"),
        ("ERROR", "shop.parent"),
    ]


def test_cancelled_run_logs_an_info_and_a_completed_one_nothing(
    durable_kit: Kit, log: Log
) -> None:
    nap = durable.function(id="nap")(lambda ctx: ctx.step.sleep("long", "1h"))
    run = nap.enqueue()
    durable_kit.run_until_idle()
    run.cancel("not needed")
    nap.enqueue()
    durable_kit.advance("2h")
    assert log.levels() == ["INFO"]
    assert log.last().getMessage().endswith("was cancelled: not needed")


def test_skipped_run_is_an_info(durable_kit: Kit, log: Log) -> None:
    limited = durable.function(id="once", rate_limit=durable.RateLimit(1, "1h"))
    function = limited(lambda ctx: None)
    for _ in range(2):
        function.enqueue()
    durable_kit.run_until_idle()
    assert log.levels() == ["INFO"]
    assert "was skipped" in log.last().getMessage()


def test_run_whose_worker_dies_is_a_warning_each_time_and_then_an_error(
    durable_kit: Kit, log: Log, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MAX_CRASHES": 2}
    durable_kit.crash_at("pay", times=9)
    run = failing().enqueue()
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert run.status == "failed"
    assert log.levels() == ["WARNING", "WARNING", "ERROR"]
    assert "the lease of worker kit ran out" in log.records()[0].getMessage()
    assert log.last().exc_info is None


def test_run_of_a_dead_process_is_a_warning(
    durable_kit: Kit, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable_kit.crash_at("pay")
    run = failing().enqueue()
    durable_kit.run_until_idle()
    monkeypatch.setattr(orphans, "_alive", lambda pid: False)
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    Run.objects.update(worker="host:7")
    assert orphans.requeue_orphans() == 1
    durable_kit.run_until_idle()
    first = log.records()[0]
    assert (first.levelname, first.run_id) == ("WARNING", str(run.pk))
    assert "the process of worker host:7 is gone" in first.getMessage()


def test_run_that_diverges_is_a_warning(log: Log) -> None:
    with Kit() as kit:
        first = durable.function(id="changed")(lambda ctx: ctx.step.sleep("one", "1h"))
        first.enqueue()
        kit.run_until_idle()
        now = kit.now()
    with Kit(now=now) as kit:
        durable.function(id="changed")(lambda ctx: ctx.step.run("one", int))
        kit.advance("2h")
    assert log.levels() == ["WARNING"]
    assert "is paused: " in log.last().getMessage()


def test_filter_names_the_run_and_the_step_on_every_record(
    durable_kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(RunContextFilter())
    other = logging.getLogger("tests.elsewhere")

    def body():
        other.warning("in the body")

    @durable.function(id="talks")
    def talks(ctx):
        other.warning("in the function")
        ctx.step.run("talk", body)
        ctx.step.run("slow", body, timeout="1m")
        ctx.logger.warning("by the context")

    @durable.function(id="talks.soon")
    async def soon(ctx):
        await ctx.step.run("talk", body)

    run = talks.enqueue()
    durable_kit.run_until_idle()
    soon.enqueue()
    durable_kit.run_until_idle()
    other.warning("outside")
    records: list[Any] = caplog.records
    # A retried function logs the same lines again.
    said = dict.fromkeys((one.function, one.step, one.attempt) for one in records)
    assert list(said) == [
        ("talks", "", 1),
        ("talks", "talk", 1),
        ("talks", "slow", 1),
        ("talks.soon", "talk", 1),
        ("", "", None),
    ]
    assert records[0].getMessage() == "in the function"
    assert any(one.getMessage().endswith("by the context") for one in records)
    ids = {one.run_id for one in records if one.function == "talks"}
    assert ids == {str(run.pk)}


def test_filter_adds_the_fields_for_a_format() -> None:
    record = logging.makeLogRecord({"msg": "hello", "function": "mine"})
    assert RunContextFilter().filter(record) is True
    line = logging.Formatter("%(run_id)s|%(function)s|%(message)s").format(record)
    assert line == "|mine|hello"
