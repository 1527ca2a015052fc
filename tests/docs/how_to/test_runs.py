"""Examples of docs/how-to/runs.md."""

from __future__ import annotations

import re
from pathlib import Path

from django.contrib.auth.models import User

from durable_jobs import durable
from durable_jobs.queries import run_filter
from tests.docs.examples import section
from tests.docs.pages import DOCS


@section("Conditions")
def test_conditions(story):
    page = Path(DOCS / "how-to/runs.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|.*\| (.*?) \|$", page, re.M)
    found = {name: how for names, how in rows for name in re.findall(r"`(\w+)`", names)}
    assert set(found) == set(run_filter.NAMES)
    for name in run_filter.UNINDEXED:
        assert found[name] == "among the newest"
    assert f"{run_filter.MAX_SEARCHED:,}" in page


@section("Act on many runs")
def test_act_on_many_runs(run_example, shop, kit):
    run_example()
    working = False

    @durable.function
    def order(ctx):
        if not working:
            raise durable.NonRetriableError("the shop is away")

    runs = [order.enqueue() for _ in range(3)]
    kit.run_until_idle()
    working = True
    run = shop.redrive_failed(User.objects.create_superuser("ann"), order.id)
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.output == {
        "action": "redrive",
        "done": 3,
        "refused": 0,
        "failed": 0,
        "problems": [],
    }
    for one in runs:
        one.refresh_from_db()
        assert one.status == "completed"
