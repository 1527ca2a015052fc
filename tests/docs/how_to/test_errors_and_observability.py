"""Examples of docs/how-to/errors-and-observability.md."""

from __future__ import annotations

import logging

from django.core import mail
from django.test import TestCase

from durable_jobs.signals import run_changed, step_changed
from tests.docs.examples import section


@section("Send failures to Sentry")
def test_send_failures_to_sentry(run_example, shop, kit):
    run_example()
    before = list(logging.getLogger("durable_jobs").handlers)
    shop.connect()
    run = shop.charge.enqueue({"order_id": 7})
    kit.advance("1h")
    run.refresh_from_db()
    logging.getLogger("durable_jobs").handlers = before
    assert run.status == "failed"
    ((message, tags),) = shop.reports
    assert tags == {"run_id": str(run.pk), "function": "shop.charge"}
    assert "the bank does not answer" in message
    assert "7" not in message.replace(str(run.pk), "")


@section("Tell people about a failure")
def test_tell_people_about_a_failure(run_example, shop, kit):
    run_example()
    shop.import_prices.enqueue()
    kit.run_until_idle()
    (message,) = mail.outbox
    assert message.subject == "shop.import_prices failed"
    assert message.body.endswith(": the file is empty")


@section("Count what happens")
def test_count_what_happens(run_example, shop, kit):
    run_example()
    run_changed.disconnect(shop.count_runs)
    step_changed.disconnect(shop.count_retries)
    run_changed.connect(shop.count_runs)
    step_changed.connect(shop.count_retries)
    with TestCase.captureOnCommitCallbacks(execute=True):
        shop.sync.enqueue()
        kit.advance("1h")
    run_changed.disconnect(shop.count_runs)
    step_changed.disconnect(shop.count_retries)
    assert shop.ended == {("shop.sync", "completed"): 1}, shop.ended
    assert shop.retried == {"shop.sync": 1}, shop.retried
