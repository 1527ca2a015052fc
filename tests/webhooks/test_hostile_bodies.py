"""The cost of a hostile delivery, and the checks before its body is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.test import Client

from durable_jobs import durable
from durable_jobs.models import Event
from durable_jobs.testing import Kit
from tests.hostile import MEGABYTE, PATTERNS, body, in_linear_time, unread
from tests.webhooks.conftest import SECRET, Post

Hook = Callable[..., durable.Function]

SCHEMES = {
    "github": durable.verify.GitHub(SECRET),
    "stripe": durable.verify.Stripe(SECRET),
    "slack": durable.verify.Slack(SECRET),
    "standard": durable.verify.StandardWebhooks("whsec_c2VjcmV0"),
    "shared": durable.verify.SharedSecret(SECRET),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hostile_deliveries_take_linear_time(
    kit: Kit, hook: Hook, post: Post, settings: Any, pattern: str
) -> None:
    hook("open", id="open", verify=durable.verify.Unsigned())
    hook("acme")
    for size in (10_000, 100_000, 2**19, MEGABYTE):
        settings.DURABLE_JOBS = {"MAX_EVENT_BYTES": size, "WEBHOOK_RATE": None}
        raw = body(pattern, size)
        for path in ("open", "acme"):
            for kind in ("application/json", "application/x-www-form-urlencoded"):
                answer = in_linear_time(size, partial(post, raw, path, kind=kind))
                assert answer.status_code in (202, 400, 413, 422)
    assert not Event.objects.filter(name="webhook/acme", data__isnull=True).exists()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_deliveries_without_a_signature_are_refused_before_the_body_is_read(
    kit: Kit, hook: Hook, scheme: str
) -> None:
    hook("acme", verify=SCHEMES[scheme])
    path = "/durable/webhooks/acme"
    answer = Client().generic("POST", path, **unread())
    assert answer.status_code == 401
    late = {"Stripe-Signature": "t=1,v1=00", "X-Slack-Signature": "v0=00"}
    late |= {"X-Slack-Request-Timestamp": "1", "Authorization": "Bearer wrong"}
    late |= {
        "webhook-id": "1",
        "webhook-timestamp": "1",
        "webhook-signature": "v1,AA==",
    }
    assert Client().generic("POST", path, headers=late, **unread()).status_code == 401


def test_unknown_paths_and_large_deliveries_are_refused_before_the_body_is_read(
    kit: Kit, hook: Hook
) -> None:
    hook("open", verify=durable.verify.Unsigned())
    missing = Client().generic("POST", "/durable/webhooks/none", **unread())
    assert missing.status_code == 404
    large = Client().generic("POST", "/durable/webhooks/open", **unread(2**19 + 1))
    assert large.status_code == 413
