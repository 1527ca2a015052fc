"""Request rates are counted by client, and wrong keys by address."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import transaction
from django.test import override_settings

from durable_jobs.conf import Rate
from durable_jobs.control import request_throttle
from tests.api.conftest import Caller, problem

pytestmark = pytest.mark.django_db


def rate(text):
    return override_settings(DURABLE_JOBS={"API_RATE": text})


def test_cache_in_the_database_that_fails_leaves_the_transaction_whole(db):
    table = {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "no_such_table",
    }
    with override_settings(CACHES={"default": table}), transaction.atomic():
        assert request_throttle.wait("somebody", Rate(1, timedelta(minutes=1))) is None
        assert User.objects.count() == 0


def test_rate_of_none_counts_nothing(kit, api):
    with rate(None):
        assert {api.get("functions").status_code for _ in range(50)} == {200}


def test_refused_request_learns_when_to_retry(kit, api, program):
    with rate("3/1m"):
        assert [api.get("functions").status_code for _ in range(3)] == [200] * 3
        response = api.get("functions")
        problem(response, 429, "too-many-requests")
        assert 1 <= int(response["Retry-After"]) <= 60
        # Another client has its own count, and so has an anonymous one.
        assert program().get("functions").status_code == 200
        problem(Caller().get("functions"), 401, "unauthorized")
        kit.advance("2m")
        assert api.get("functions").status_code == 200


def test_retry_after_that_time_is_accepted(kit, api):
    with rate("3/1m"):
        kit.advance("50s")
        for _ in range(3):
            api.get("functions")
        waited = 0
        while (response := api.get("functions")).status_code == 429:
            seconds = int(response["Retry-After"])
            waited += seconds
            assert waited <= 61
            kit.advance(seconds)
        assert response.status_code == 200


def test_period_of_any_start_never_has_much_more_than_the_limit(kit, api):
    passed = []
    with rate("10/1m"):
        for _ in range(150):
            if api.get("functions").status_code == 200:
                passed.append(kit.now())
            kit.advance("1s")
    for begin in passed:
        inside = [one for one in passed if 0 <= (one - begin).total_seconds() < 60]
        assert len(inside) <= 11
    assert len(passed) >= 20


def test_guessing_keys_is_counted_by_address(kit, api):
    with rate("3/1m"):
        guesses = [
            Caller(headers={"Authorization": f"Bearer dj_{n}"}).get("runs")
            for n in range(5)
        ]
        assert [one.status_code for one in guesses] == [401] * 3 + [429] * 2
        problem(Caller().get("runs"), 429, "too-many-requests")
        problem(Caller().post("callbacks/x/succeed"), 429, "too-many-requests")
        # A valid key is accepted from the same address, and probes are exempt.
        assert api.get("functions").status_code == 200
        assert Caller().get("health").status_code == 200
        assert Caller().get("ready").status_code in (200, 503)


def test_simultaneous_requests_count_separately(kit):
    passed, refused = [], []
    barrier = threading.Barrier(8)

    def ask():
        barrier.wait()
        for _ in range(10):
            too_many = request_throttle.wait("somebody", Rate(20, timedelta(minutes=1)))
            (passed if too_many is None else refused).append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) <= 20
    assert len(passed) + len(refused) == 80


def test_unavailable_cache_refuses_nothing(kit, api, monkeypatch, caplog):
    def away(*args, **kwargs):
        raise ConnectionError("no cache")

    monkeypatch.setattr(cache, "get", away)
    with rate("1/1m"):
        assert {api.get("functions").status_code for _ in range(3)} == {200}
    assert "Requests are not throttled" in caplog.text


def test_cache_that_stores_nothing_counts_nothing(kit, api, settings, caplog):
    dummy = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    settings.CACHES = {"default": dummy}
    settings.DURABLE_JOBS = {"API_RATE": "1/1m"}
    for _ in range(3):
        assert api.get("functions").status_code == 200
    assert not caplog.records


@pytest.mark.parametrize(
    ("proxies", "header", "counted"),
    [
        (0, "203.0.113.7", "192.0.2.1"),
        (1, None, "192.0.2.1"),
        (1, "", "192.0.2.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "forged, 203.0.113.7", "203.0.113.7"),
        (2, "forged, 203.0.113.7, 198.51.100.1", "203.0.113.7"),
        (2, "203.0.113.7", "203.0.113.7"),
        (1, "2001:db8::1", "2001:db8::/64"),
        (1, ",", ""),
    ],
)
def test_client_address_is_what_the_outermost_trusted_proxy_saw(
    rf, settings, proxies, header, counted
):
    settings.DURABLE_JOBS = {"NUM_PROXIES": proxies}
    headers = {} if header is None else {"HTTP_X_FORWARDED_FOR": header}
    request = rf.get("/", REMOTE_ADDR="192.0.2.1", **headers)
    expected = f"address:{counted or '192.0.2.1'}"
    assert request_throttle.address(request) == expected
