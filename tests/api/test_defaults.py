"""Limits and authentication that hold without any setting."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client, RequestFactory, override_settings

from durable_jobs import durable
from durable_jobs.admin.runs.export import as_csv
from durable_jobs.conf import problems, settings
from durable_jobs.control import request_throttle
from durable_jobs.progress.tokens import ProgressView
from tests.api.conftest import V1, Caller, person_of, problem, user_with

pytestmark = pytest.mark.django_db


def address(text: str) -> str:
    """Return the key by which requests from an address are counted."""
    return request_throttle.address(RequestFactory(REMOTE_ADDR=text).get("/"))


def closed(**values: str) -> Any:
    return override_settings(DURABLE_JOBS=values)


def test_public_endpoints_all_have_a_rate():
    for name in ("API_RATE", "WEBHOOK_RATE", "PROGRESS_RATE"):
        assert getattr(settings, name).limit == 1200


def test_addresses_of_one_ipv6_network_count_as_one():
    assert address("2001:db8:1:2::1") == address("2001:db8:1:2:ffff:ffff:ffff:ffff")
    assert address("2001:db8:1:2::1") != address("2001:db8:1:3::1")
    assert address("fe80::1%eth0") == address("fe80::2")
    assert address("::ffff:192.0.2.1") == address("192.0.2.1")
    assert address("192.0.2.1") != address("192.0.2.2")
    assert address("unix:") != address("")


def test_progress_is_counted_by_its_run_and_wrong_tokens_by_address(kit):
    run = durable.function(id="tests.f")(lambda ctx: None).enqueue()
    other = durable.function(id="tests.g")(lambda ctx: None).enqueue()
    client = Client()

    def ask(token: str, part: str = "") -> int:
        return client.get(f"/durable/progress/{token}/{part}").status_code

    mine, others = ProgressView(run.pk).token(), ProgressView(other.pk).token()
    with closed(PROGRESS_RATE="2/1m"):
        assert [ask(mine), ask(mine, "fragment/"), ask(mine)] == [200, 200, 429]
        assert ask(others) == 200
        assert [ask("wrong"), ask("wronger"), ask("wrong")] == [404, 404, 429]
        assert client.get(f"/durable/progress/{mine}/")["Retry-After"]


def test_schema_needs_authentication(kit, api):
    path = f"{V1}openapi.json"
    problem(Client().get(path), 401, "unauthorized")
    problem(
        Client().get(path, headers={"Authorization": "Bearer x"}), 401, "unauthorized"
    )
    assert api.get("openapi.json").json()["openapi"]
    staff = person_of(user_with(is_staff=True))
    assert staff.get("openapi.json").status_code == 200
    with closed(API_DESCRIPTION="public"):
        assert Client().get(path).status_code == 200
    with closed(API_DESCRIPTION="off"):
        problem(api.get("openapi.json"), 404, "not-found")


def test_readiness_is_public_until_a_setting_closes_it(kit, api):
    assert Caller().get("ready").status_code in (200, 503)
    with closed(API_READY="private"):
        problem(Caller().get("ready"), 401, "unauthorized")
        assert api.get("ready").status_code in (200, 503)
        problem(person_of(user_with(is_staff=True)).get("ready"), 403, "forbidden")
    with closed(API_READY="off"):
        problem(api.get("ready"), 404, "not-found")
    with closed(API_READY="never"):
        assert "'public', 'private' or 'off'" in problems()[0][0]


@pytest.mark.parametrize("sign", "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
def test_cells_of_csv_that_a_spreadsheet_would_calculate_are_text(sign):
    _head, line = as_csv([{"reason": f"{sign}1+1"}], ["reason"])
    assert line.strip('"').startswith("'")
