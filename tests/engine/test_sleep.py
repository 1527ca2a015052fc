"""``ctx.step.sleep`` and ``sleep_until``, which occupy no worker."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from durable_jobs.models import Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start


@pytest.mark.parametrize("duration", ["1h", timedelta(hours=1), 3600, 3600.0], ids=repr)
def test_sleep_ends_when_due_and_not_before(start: Start, later: Later, duration):
    def sleeping(ctx):
        assert ctx.step.sleep("nap", duration) is None
        return "awake"

    run = start(sleeping)
    assert run.status == "waiting"
    assert run.lease_token is None, "a worker is still busy"
    assert run.steps.get().status == "sleeping"

    assert later(run, "59m59s").status == "waiting"
    assert later(run, "1s").result() == "awake"
    assert run.steps.get().status == "completed"


def test_sleep_counts_from_its_first_call_not_from_the_last_replay(
    start: Start, later: Later, durable_kit: Kit
):
    woken_at = []

    def sleeping(ctx):
        ctx.step.parallel(
            "both",
            {
                "short": lambda: ctx.step.sleep("short", "10m"),
                "long": lambda: ctx.step.sleep("long", "1h"),
            },
        )
        ctx.step.run("note", lambda: woken_at.append(durable_kit.now()))

    began = durable_kit.now()
    later(start(sleeping), "2h")

    assert woken_at == [began + timedelta(hours=1)]


def test_sleep_lasts_up_to_a_year(start: Start, later: Later):
    def sleeping(ctx):
        ctx.step.sleep("long", "366d")
        return "awake"

    run = start(sleeping)
    assert later(run, "365d").status == "waiting"
    assert later(run, "1d").result() == "awake"


def test_sleep_of_no_time_does_not_wait(start: Start):
    def sleeping(ctx):
        ctx.step.sleep("not at all", 0)
        return "awake"

    assert start(sleeping).result() == "awake"


def test_sleep_ends_once_however_late_the_tick(
    start: Start, later: Later, durable_kit: Kit
):
    entries = []

    def sleeping(ctx):
        ctx.step.sleep("nap", "1h")
        ctx.step.run("after", lambda: entries.append(durable_kit.now()))

    run = start(sleeping)
    durable_kit.advance("30d", run=False)

    assert later(run).status == "completed"
    assert entries == [durable_kit.now()]
    assert not Wait.objects.exists()


def test_sleep_until_accepts_a_moment_in_any_zone(
    start: Start, later: Later, durable_kit: Kit
):
    moment = (durable_kit.now() + timedelta(hours=5)).astimezone(ZoneInfo("Asia/Tokyo"))

    def sleeping(ctx):
        ctx.step.sleep_until("then", moment)
        return "awake"

    run = start(sleeping)
    assert later(run, "4h59m").status == "waiting"
    assert later(run, "1m").result() == "awake"


def test_sleep_until_a_past_moment_does_not_wait(start: Start, durable_kit: Kit):
    past = durable_kit.now() - timedelta(days=400)

    def sleeping(ctx):
        ctx.step.sleep_until("then", past)
        return "awake"

    assert start(sleeping).result() == "awake"


def test_sleep_until_a_computed_moment_keeps_the_first(
    start: Start, later: Later, durable_kit: Kit
):
    """The moment of the first call counts: replay does not postpone it."""

    def sleeping(ctx):
        ctx.step.sleep_until("then", durable_kit.now() + timedelta(hours=1))
        ctx.step.sleep_until("later", durable_kit.now() + timedelta(hours=1))
        return "awake"

    run = start(sleeping)
    assert later(run, "1h").status == "waiting"
    assert later(run, "1h").result() == "awake"


WRONG: dict[str, tuple[str, Any, str]] = {
    "a negative time": ("sleep", -1, "zero or more"),
    "a negative text": ("sleep", "-1h", "expected"),
    "more than a year": ("sleep", "367d", "366 days"),
    "no duration": ("sleep", "soon", "expected"),
    "not a number": ("sleep", float("nan"), "expected"),
    "nothing": ("sleep", None, "expected"),
    "a naive moment": ("sleep_until", datetime(2030, 1, 1), "aware"),  # noqa: DTZ001  # the case under test
    "no moment": ("sleep_until", "tomorrow", "aware"),
    "no moment at all": ("sleep_until", None, "aware"),
    "a moment too far away": (
        "sleep_until",
        datetime(9000, 1, 1, tzinfo=ZoneInfo("UTC")),
        "366 days",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_time_is_refused(start: Start, case):
    kind, value, expected = WRONG[case]

    def sleeping(ctx):
        getattr(ctx.step, kind)("nap", value)

    run = start(sleeping)

    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]
