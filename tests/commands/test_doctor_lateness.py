"""``durable_doctor``: late work and other findings."""

from __future__ import annotations

import uuid
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from durable_jobs.maintenance import doctor
from durable_jobs.models import Event, Pause, Run, Wait
from tests.commands.conftest import serving

pytestmark = pytest.mark.django_db


def test_installation_without_a_tick_is_found(durable_kit, call):
    with pytest.raises(SystemExit) as exit:
        call("durable_doctor")
    assert exit.value.code == 1


def test_tick_that_has_stopped_is_found(durable_kit, finds):
    durable_kit.run_until_idle()
    durable_kit.advance("29s", run=False)
    assert doctor.examine().healthy
    durable_kit.advance("10m", run=False)
    finds("tick")


def test_runs_of_dead_workers_are_found(durable_kit, napper, finds):
    durable_kit.run_until_idle()
    napper.enqueue()
    Run.objects.update(
        status="running",
        lease_token=uuid.uuid4(),
        lease_until=durable_kit.now() - timedelta(minutes=1),
    )
    finds("expired-lease")
    assert Run.objects.get().status == "queued"


def test_overdue_waits_are_found(durable_kit, asleep, finds):
    Wait.objects.update(due_at=durable_kit.now() - timedelta(minutes=1))
    finds("overdue-wait")
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == "rested"


def test_unmatched_events_are_found(durable_kit, finds):
    durable_kit.run_until_idle()
    durable_kit.send("t/anything")
    long_ago = durable_kit.now() - timedelta(minutes=1)
    Event.objects.update(ts=long_ago, received_at=long_ago)
    finds("undelivered-event")


def test_ready_runs_that_do_not_begin_are_found(durable_kit, napper, diagnose):
    durable_kit.run_until_idle()
    napper.enqueue()
    Run.objects.update(due_at=durable_kit.now() - timedelta(minutes=2))
    code, report = diagnose()
    assert (code, report["figures"]["oldest_ready_seconds"]) == (0, 120)
    code, report = diagnose("--oldest", "1m")
    assert code == 1
    assert [one["check"] for one in report["findings"]] == ["not-begun"]


# Notices


def test_notices_are_no_problems(durable_kit, asleep, diagnose):
    long_ago = durable_kit.now() - timedelta(minutes=11)
    Run.objects.update(
        function="t.removed", status="paused", reason="by hand", due_at=long_ago
    )
    Wait.objects.all().delete()
    Pause.objects.create(kind="function", name="t.napper", paused_at=durable_kit.now())
    code, report = diagnose()
    assert (code, report["healthy"]) == (0, True)
    said = {one["check"]: one["message"] for one in report["findings"]}
    assert "'t.removed'" in said["unknown-function"]
    assert "by hand" in said["paused-run"]
    assert "'t.napper'" in said["paused-function"]


def test_run_that_keeps_losing_its_worker_is_a_notice(durable_kit, asleep, diagnose):
    Run.objects.update(status="queued", crash_count=3)
    code, report = diagnose()
    assert (code, [one["check"] for one in report["findings"]]) == (
        0,
        ["crashing-run"],
    )


def test_text_output_has_the_same_findings(durable_kit, napper, call):
    durable_kit.run_until_idle()
    serving()
    run = napper.enqueue()
    Run.objects.update(status="running")
    output = StringIO()
    with pytest.raises(SystemExit):
        call_command("durable_doctor", stdout=output)
    said = output.getvalue()
    assert "PROBLEM running-unheld: 1 runs are running without a lease" in said
    assert str(run.pk) in said
    assert said.endswith("1 problem.\n")
    assert "mended: 1 x running-unheld" in call("durable_doctor", "--fix")


def test_wrong_duration_is_refused(durable_kit, call):
    with pytest.raises(CommandError, match="--oldest"):
        call("durable_doctor", "--oldest", "soon")
