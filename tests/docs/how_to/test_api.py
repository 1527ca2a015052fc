"""Examples of docs/how-to/api.md."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.test import Client

from durable_jobs.control import api_keys
from durable_jobs.control.actor import Actor
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Send events")
def test_send_events(run_example):
    run_example()
    owner = User.objects.create_superuser("deploy")
    key = api_keys.create(
        Actor(owner), "deploy", ["events:send", "runs:read", "payloads:read"]
    )
    headers = {"Authorization": f"Bearer {key.text}"}
    V1 = "/durable/api/v1/"
    for _ in range(2):
        answer = Client().post(
            f"{V1}events",
            {"name": "shop/order.placed", "data": {"order_id": 7}},
            content_type="application/json",
            headers={**headers, "Idempotency-Key": "order-7"},
        )
        assert (answer.status_code, answer.json()) == (202, {"ids": ["order-7"]})
    run = Run.objects.get()
    listed = Client().get(f"{V1}runs?event=order-7", headers=headers).json()["runs"]
    assert [one["id"] for one in listed] == [str(run.pk)]
    result = Client().get(f"{V1}runs/{run.pk}/result?wait=30", headers=headers)
    assert result.status_code == 200
    assert result.json()["output"] == {"fulfilled": 7}
    lines = '{"name": "shop/order.placed", "data": {"order_id": 8}}\n' * 2
    answer = Client().post(
        f"{V1}events", lines, content_type="application/x-ndjson", headers=headers
    )
    assert len(answer.json()["ids"]) == 2
