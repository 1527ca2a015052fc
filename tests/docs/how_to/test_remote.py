"""Examples of docs/how-to/remote.md."""

from __future__ import annotations

from django.test import override_settings

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.remote.apps import check_apps
from tests.docs.examples import section
from tests.remote.elsewhere import elsewhere, op, signed


@section("Run functions of a remote app")
def test_run_functions_of_a_remote_app(run_example, shop, kit):
    run_example()

    def told():
        return [message.id for message in check_apps() if "'billing'" in message.msg]

    with override_settings(BILLING_SIGNING_KEY="signkey-prod-00"):
        assert told() == []
    assert told() == ["durable_jobs.E004"]
    with elsewhere() as app, override_settings(BILLING_SIGNING_KEY="signkey-prod-00"):
        object.__setattr__(shop.BILLING, "url", app.url)
        app.answers(
            signed("signkey-prod-00", 206, [op("StepRun", "charge", data="ch_1")]),
            signed("signkey-prod-00", 200, "paid"),
        )
        durable.send("shop/order.placed", {"shop": 1})
        kit.run_until_idle()
    run = Run.objects.get(function="billing-charge-card")
    assert (run.result(), run.steps.get().name) == ("paid", "charge")
    assert "x-inngest-signature" in app.requests[0].headers
