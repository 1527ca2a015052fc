"""Fixtures of the tests of commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from durable_jobs import clock, durable
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Worker

Call = Callable[..., str]


@pytest.fixture
def call() -> Call:
    """Return a function that calls a command and returns its output."""

    def calling(*arguments: Any, **options: Any) -> str:
        output = StringIO()
        call_command(*map(str, arguments), stdout=output, **options)
        return output.getvalue()

    return calling


@pytest.fixture
def call_json(call: Call) -> Callable[..., Any]:
    """Return a function that calls a command and parses its JSON output."""

    def calling(*arguments: Any, **options: Any) -> Any:
        return json.loads(call(*arguments, "--format", "json", **options))

    return calling


def serving() -> None:
    """Record a heartbeat of a worker of the default queue."""
    now = clock.now()
    row = {"kind": "worker", "seen_at": now, "started_at": now}
    row |= {"queues": ["default"], "functions": registry.ids()}
    Worker.objects.update_or_create(name="tests", defaults=row)


@pytest.fixture
def napper(durable_kit):
    """Declare a function that sleeps for an hour."""

    @durable.function(id="t.napper")
    def napper(ctx):
        ctx.step.sleep("nap", "1h")
        return "rested"

    return napper


@pytest.fixture
def asleep(durable_kit, napper):
    """Return a sleeping run."""
    run = napper.enqueue()
    durable_kit.run_until_idle()
    return run


@pytest.fixture
def diagnose():
    """Return a function that calls the doctor and returns its exit code and report."""

    def calling(*arguments):
        serving()
        output = StringIO()
        try:
            call_command(
                "durable_doctor", "--format", "json", *arguments, stdout=output
            )
        except SystemExit as exit:
            return exit.code, json.loads(output.getvalue())
        return 0, json.loads(output.getvalue())

    return calling


@pytest.fixture
def finds(diagnose):
    """Return a check: the doctor finds this alone, fixes it, then finds nothing."""

    def checking(check, *arguments, count=1):
        code, report = diagnose(*arguments)
        found = {one["check"]: one["count"] for one in report["findings"]}
        assert (code, found) == (1, {check: count})
        code, report = diagnose("--fix", *arguments)
        assert (code, report["findings"]) == (0, [])
        return report["mended"]

    return checking
