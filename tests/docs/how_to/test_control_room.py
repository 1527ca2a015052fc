"""Examples of docs/how-to/control-room.md."""

from __future__ import annotations

import logging
from types import SimpleNamespace

from durable_jobs.models import Run
from tests.docs.examples import section


@section("Arguments and log lines of a step")
def test_what_a_step_was_given_and_what_it_logged(run_example, shop, kit):
    run_example()
    run_example()
    run = shop.pay.enqueue()
    kit.run_until_idle()
    step = run.steps.get()
    assert step.input == {"args": [7], "kwargs": {"currency": "EUR"}}, step.input
    assert step.logs["left_out"] == 0
    (line,) = step.logs["lines"]
    assert line["message"] == "charge order 7 in EUR", line
    assert (line["level"], line["logger"]) == ("INFO", "shop.durable"), line
    logging.getLogger("shop").setLevel("WARNING")
    again = shop.pay.enqueue()
    kit.run_until_idle()
    assert again.steps.get().logs is None


@section("Visible runs")
def test_who_sees_which_runs(run_example, shop):
    run_example()
    who = SimpleNamespace(user=SimpleNamespace(is_superuser=False, username="ann"))
    assert "ann:" in str(shop.visible(who, Run.objects.all()).query)
    shop.who = who
    run_example()
