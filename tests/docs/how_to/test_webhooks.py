"""Examples of docs/how-to/webhooks.md."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from django.test import Client, override_settings

from durable_jobs.models import Event, Run
from tests.docs.examples import section


@section("Start functions on webhooks")
def test_start_functions_on_webhooks(run_example, kit):
    run_example()
    run_example()
    body = json.dumps({"id": "evt_1", "type": "charge.succeeded"})
    stamp = int(kit.now().timestamp())
    signature = hmac.new(
        b"whsec_1", f"{stamp}.{body}".encode(), hashlib.sha256
    ).hexdigest()

    def deliver(signature):
        with override_settings(STRIPE_WEBHOOK_SECRET=["whsec_2", "whsec_1"]):
            return Client().post(
                "/durable/webhooks/stripe",
                body,
                content_type="application/json",
                headers={"Stripe-Signature": f"t={stamp},v1={signature}"},
            )

    assert [deliver(signature).status_code for _ in range(2)] == [202, 202]
    assert deliver("00").status_code == 401
    kit.run_until_idle()
    assert Run.objects.get().result() == "charge.succeeded"
    event = Event.objects.get()
    assert (event.pk, event.name, event.source) == (
        "webhook:stripe:evt_1",
        "webhook/stripe",
        "webhook",
    )


@section("Verify the sender")
def test_who_may_post(run_example, kit):
    run_example()
    stamp = str(int(kit.now().timestamp()))
    digest = hmac.new(b"the old one", f"{stamp}.{{}}".encode(), hashlib.sha512).digest()
    answer = Client().post(
        "/durable/webhooks/acme",
        "{}",
        content_type="application/json",
        headers={
            "X-Acme-Signature": "sig=" + base64.b64encode(digest).decode(),
            "X-Acme-Time": stamp,
            "X-Acme-Delivery": "7",
        },
    )
    assert answer.status_code == 202
    assert answer.json() == {"ids": ["webhook:acme:7"]}


@section("Transform the event")
def test_make_your_own_event_of_it(run_example, kit):
    run_example()

    def deliver(kind, body):
        signature = hmac.new(b"a secret", body, hashlib.sha256).hexdigest()
        return Client().post(
            "/durable/webhooks/github",
            body,
            content_type="application/json",
            headers={
                "X-Hub-Signature-256": f"sha256={signature}",
                "X-GitHub-Event": kind,
            },
        )

    assert deliver("ping", b"{}").status_code == 204
    assert deliver("push", b'{"ref": "main"}').status_code == 202
    kit.run_until_idle()
    assert Run.objects.get().result() == "code/pushed main"
    assert deliver("push", b"{}").status_code == 422
    failed = Event.objects.get(name="durable/webhook.failed")
    assert failed.data["path"] == "github"
    assert failed.data["error"]["type"] == "KeyError"
    run_example()
    answer = Client().post(
        "/durable/webhooks/billing",
        {"type": "paid", "id": 7, "customer": {"name": "Ada"}},
        content_type="application/json",
        headers={"Authorization": "Bearer a secret", "User-Agent": "bill/1"},
    )
    assert answer.json() == {"ids": ["billing-7"]}
    kit.run_until_idle()
    run = Run.objects.get(function="shop.on_billing")
    assert run.result() == {"customer": {"name": "Ada"}, "from": "bill/1"}
