"""A pause with ``skip`` skips runs that are sent while it lasts, and no others."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.lifecycle import admission
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from tests.flow_control.conftest import statuses

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(30)]


@pytest.mark.parametrize("limit", [None, 1])
def test_runs_backlogged_before_the_pause_are_kept(
    durable_kit: Kit, limit: int | None
) -> None:
    function = durable.function(id="flow.kept", concurrency=limit)(lambda ctx: "done")
    durable.pause_queue("default")
    before = function.enqueue()
    durable_kit.run_until_idle()  # with limits it is now in the backlog
    function.pause(skip=True)
    meanwhile = function.enqueue()
    durable.resume_queue("default")
    durable_kit.advance("1m")
    function.resume()
    durable_kit.run_until_idle()
    for run in (before, meanwhile):
        run.refresh_from_db()
    assert (before.status, meanwhile.status) == ("completed", "skipped")


def test_key_is_skipped_also_while_its_function_is_paused(durable_kit: Kit) -> None:
    limit = durable.Concurrency(5, key="event.data.tenant")
    function = durable.function(id="flow.both", concurrency=limit)(lambda ctx: "done")
    function.pause(key="acme", skip=True, reason="unpaid")
    function.pause(reason="maintenance")
    for tenant in ("acme", "globex"):
        function.enqueue({"tenant": tenant})
    durable_kit.run_until_idle()
    found = {run.data["tenant"]: run.status for run in Run.objects.all()}
    assert found == {"acme": "skipped", "globex": "queued"}


@pytest.mark.parametrize("limit", [None, 5])
def test_runs_sent_before_the_pause_are_kept_even_if_due_later(
    durable_kit: Kit, limit: int | None
) -> None:
    function = durable.function(id="flow.before", concurrency=limit)(lambda ctx: None)
    function.enqueue()
    function.using(run_after="1h").enqueue()
    function.pause(skip=True)
    durable_kit.advance("2h")
    assert statuses() == ["queued", "queued"]
    function.resume()
    durable_kit.run_until_idle()
    assert statuses() == ["completed", "completed"]


@pytest.mark.parametrize("limit", [None, 5])
def test_delayed_run_is_not_skipped_before_it_is_due(
    durable_kit: Kit, limit: int | None
) -> None:
    function = durable.function(id="flow.delayed", concurrency=limit)(lambda ctx: None)
    function.pause(skip=True)
    function.using(run_after="1d").enqueue()
    function.using(run_after="1h").enqueue()
    durable_kit.advance("2h")
    assert statuses() == ["queued", "skipped"]
    function.resume()
    durable_kit.advance("2d")
    assert statuses() == ["completed", "skipped"]


@pytest.mark.parametrize("limit", [None, 5])
def test_runs_kept_by_a_pause_stay_kept_when_it_begins_to_skip(
    durable_kit: Kit, limit: int | None
) -> None:
    function = durable.function(id="flow.later", concurrency=limit)(lambda ctx: None)
    function.pause()
    durable_kit.advance("1s")
    function.enqueue()
    assert not function.pause(skip=True)
    function.enqueue()
    durable_kit.advance("1m")
    assert statuses() == ["queued", "skipped"]
    function.resume()
    durable_kit.run_until_idle()
    assert statuses() == ["completed", "skipped"]


def test_run_promoted_by_another_admission_is_not_skipped(
    durable_kit: Kit,
) -> None:
    """A skipped run is ended in a separate transaction, after the decision."""
    limit = durable.Concurrency(5, key="event.data.k")
    function = durable.function(id="flow.late", concurrency=limit)(lambda ctx: None)
    run = function.enqueue({"k": 1})
    admission.admit("default", 10)
    admission._skip({run.pk: "too late"})
    durable_kit.run_until_idle()
    assert statuses() == ["completed"]


@pytest.mark.parametrize("limit", [None, 5])
def test_pause_set_to_skip_twice_keeps_its_first_time(
    durable_kit: Kit, limit: int | None
) -> None:
    function = durable.function(id="flow.twice", concurrency=limit)(lambda ctx: None)
    function.pause(skip=True)
    function.enqueue()
    function.pause(skip=True, reason="still")
    durable_kit.advance("1m")
    assert statuses() == ["skipped"]
