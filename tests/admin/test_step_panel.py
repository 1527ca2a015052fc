"""The page of a step: its input and its log lines, and who sees them."""

from __future__ import annotations

import logging

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.logs import LINES
from project.shop.models import Tenant
from tests.admin.conftest import page_of
from tests.admin.people import member, page

pytestmark = pytest.mark.django_db

logger = logging.getLogger("project.tests")


@pytest.fixture
def step(durable_kit):
    """Let a step fail once and log in each attempt; return it."""
    calls = []

    def charge(order, currency):
        calls.append(1)
        logger.info("plum: attempt %d for order %d", len(calls), order["id"])
        logger.error("pear is <b>bold</b>")
        if len(calls) == 1:
            raise OSError("first")

    @durable.function(id="tests.charging", backoff=durable.Backoff.fixed("5s"))
    def charging(ctx):
        ctx.step.run("charge", charge, {"id": 7, "fruit": "apple"}, currency="EUR")

    run = charging.enqueue({})
    durable_kit.advance("1m")
    return run.steps.get()


def test_step_shows_its_input_and_its_log_lines(step, get):
    shown = get(page_of(step))
    for text in ("Input", '"currency": "EUR"', '"fruit": "apple"', "Log lines"):
        assert text in shown.text
    for text in ("INFO", "ERROR", "project.tests", "plum: attempt 2 for order 7"):
        assert text in shown.text
    times = [attrs for tag, attrs in shown.tags if tag == "time"]
    first = step.logs["lines"][0]["at"]
    assert any(attrs["datetime"] == first for attrs in times)
    assert shown.text.index("Input") < shown.text.index("Output")
    assert "left out" not in shown.text


def test_failed_attempts_show_their_own_log_lines(step, get):
    text = get(page_of(step)).text
    own, _, attempts = text.rpartition("Failed attempts")
    assert "attempt 2 for" in own
    assert "attempt 1 for" not in own
    assert "attempt 1 for" in attempts
    assert "attempt 2 for" not in attempts


def test_markup_in_a_message_is_text(step, get):
    shown = get(page_of(step))
    assert "pear is &lt;b&gt;bold&lt;/b&gt;" in shown.source
    assert "<b>bold" not in shown.source


def test_input_and_log_lines_need_the_permission_for_payloads(step):
    shown = page(member("ann", "view_step"), page_of(step))
    for secret in ("apple", "EUR", "plum", "pear", "project.tests"):
        assert secret not in shown.source
    assert "Input" in shown.text
    # The input, the result, the lines, and the error and the lines of the attempt.
    assert shown.text.count("Hidden: you may not see payloads.") == 5
    assert "OSError" in shown.text

    assert (
        "plum" in page(member("bob", "view_step", "view_payload"), page_of(step)).text
    )


def test_step_without_input_and_logs_has_no_panel(durable_kit, get):
    run = durable.function(id="tests.f")(
        lambda ctx: ctx.step.run("x", lambda: 7)
    ).enqueue()
    durable_kit.run_until_idle()
    text = get(page_of(run.steps.get())).text
    assert "Input" not in text
    assert "Log lines" not in text


def test_lines_that_were_left_out_are_counted(durable_kit, get):
    def talk():
        for number in range(LINES + 1_200):
            logger.info("line %d.", number)

    run = durable.function(id="tests.f")(lambda ctx: ctx.step.run("x", talk)).enqueue()
    durable_kit.run_until_idle()
    shown = get(page_of(run.steps.get()))
    assert "1,200 earlier lines were left out." in shown.text
    assert "line 1199." not in shown.text
    assert "line 1200." in shown.text


def test_instances_in_an_input_are_links(durable_kit, get):
    ann = Tenant.objects.create(name="Ann Arbor")
    run = durable.function(id="tests.f")(
        lambda ctx: ctx.step.run("x", lambda tenant: 7, ann)
    ).enqueue()
    durable_kit.run_until_idle()
    shown = get(page_of(run.steps.get()))
    assert f"/admin/shop/tenant/{ann.pk}/change/" in shown.links()


def test_log_lines_of_a_step_cost_one_query(step, admin_client):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(page_of(step))
        return len(captured)

    with_lines = queries()
    type(step).objects.update(logs=None)
    assert queries() == with_lines - 1


def test_pages_of_runs_and_lists_load_neither(step, admin_client):
    for address in (page_of(step.run), "/admin/durable_jobs/step/"):
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(address).status_code == 200
        texts = " ".join(query["sql"] for query in captured)
        assert '"durable_jobs_step"."name"' in texts
        assert '"durable_jobs_step"."input"' not in texts
        assert '"logs"' not in texts


def test_run_as_a_document_has_the_inputs(step, admin_client):
    document = admin_client.get(
        reverse("admin:durable_jobs_run_document", args=[step.run_id])
    ).json()
    (found,) = document["steps"]
    assert found["input"] == {
        "args": [{"id": 7, "fruit": "apple"}],
        "kwargs": {"currency": "EUR"},
    }
    assert "plum" not in str(document)
