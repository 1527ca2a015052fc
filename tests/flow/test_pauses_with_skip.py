"""A pause with ``skip`` skips what comes while it lasts, and nothing else."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(30)]


@pytest.mark.parametrize("limit", [None, 1])
def test_what_stood_in_line_before_it_is_kept(
    durable_kit: Kit, limit: int | None
) -> None:
    function = durable.function(id="flow.kept", concurrency=limit)(lambda ctx: "done")
    durable.pause_queue("default")
    before = function.enqueue()
    durable_kit.run_until_idle()  # with limits it is in line now
    function.pause(skip=True)
    meanwhile = function.enqueue()
    durable.resume_queue("default")
    durable_kit.advance("1m")
    function.resume()
    durable_kit.run_until_idle()
    for run in (before, meanwhile):
        run.refresh_from_db()
    assert (before.status, meanwhile.status) == ("completed", "skipped")


def test_a_key_is_skipped_also_while_its_function_is_paused(durable_kit: Kit) -> None:
    limit = durable.Concurrency(5, key="event.data.tenant")
    function = durable.function(id="flow.both", concurrency=limit)(lambda ctx: "done")
    function.pause(key="acme", skip=True, reason="unpaid")
    function.pause(reason="maintenance")
    for tenant in ("acme", "globex"):
        function.enqueue({"tenant": tenant})
    durable_kit.run_until_idle()
    statuses = {run.data["tenant"]: run.status for run in Run.objects.all()}
    assert statuses == {"acme": "skipped", "globex": "queued"}
