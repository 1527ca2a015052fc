"""Events and signals: one, many, or one a line; all are accepted or none."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_jobs import durable, http_input
from durable_jobs.models import Event, Run
from durable_jobs.serialization import canonical
from tests.api.conftest import problem

pytestmark = pytest.mark.django_db

LINES = "application/x-ndjson"


def limits(**values: Any) -> Any:
    return override_settings(DURABLE_JOBS=values)


def test_event_starts_its_functions(kit, api, sleeper):
    response = api.post("events", {"name": "tests/slept", "data": {"bed": 7}})
    assert response.status_code == 202
    (id,) = response.json()["ids"]
    event = Event.objects.get(pk=id)
    assert event.data == {"bed": 7}
    assert event.source.startswith("api key ")
    run = Run.objects.get()
    assert (run.function, run.event_id) == (sleeper.id, id)


def test_events_come_as_an_array_or_one_a_line_in_order(kit, api):
    several = [{"name": f"tests/{n}", "id": f"id-{n}"} for n in range(3)]
    assert api.post("events", several).json() == {"ids": ["id-0", "id-1", "id-2"]}
    lines = b"\n".join(
        json.dumps({"name": "tests/line", "data": {"n": n}}).encode() for n in range(3)
    )
    response = api.post("events", b"\r\n" + lines + b"\n\n", LINES)
    ids = response.json()["ids"]
    assert [Event.objects.get(pk=id).data["n"] for id in ids] == [0, 1, 2]


def test_fields_of_an_event_all_arrive(kit, api):
    given = {
        "name": "tests/full",
        "data": {"deep": [1, {"x": 1.5}], "text": "é\u2028"},
        "id": "mine",
        "ts": "2026-03-04T13:00:00+01:00",
        "user": {"name": "Ann"},
        "v": "2",
    }
    assert api.post("events", given).status_code == 202
    event = Event.objects.get(pk__endswith=":mine")
    assert event.ts == kit.now()
    assert (event.data, event.user, event.v) == (given["data"], {"name": "Ann"}, "2")


def test_repeated_idempotency_key_starts_nothing_twice(kit, api, sleeper):
    for _ in range(3):
        response = api.post(
            "events", {"name": "tests/slept"}, **{"Idempotency-Key": "order 7"}
        )
        assert response.json() == {"ids": ["order 7"]}
    assert Run.objects.count() == 1
    other = api.post("events", {"name": "tests/x"}, **{"Idempotency-Key": "order 7"})
    problem(other, 409, "duplicate-key")


@pytest.mark.parametrize(
    "body",
    [
        [{"name": "tests/a"}, {"name": "tests/b"}],
        {"name": "tests/a", "id": "another"},
        [],
    ],
)
def test_idempotency_key_is_for_one_event_without_another_id(kit, api, body):
    response = api.post("events", body, **{"Idempotency-Key": "k"})
    problem(response, 422, "invalid")
    assert not Event.objects.exists()


def test_wrong_event_refuses_all_and_is_named(kit, api):
    body = [{"name": "tests/a"}, {"name": "", "data": 7}, {"nam": "tests/c"}]
    found = problem(api.post("events", body), 422, "invalid")
    assert {(one["in"], one["at"]) for one in found["errors"]} == {
        ("body", "1.name"), ("body", "1.data"), ("body", "2.name"), ("body", "2.nam"),
    }  # fmt: skip
    assert not Event.objects.exists()


def test_data_that_violates_a_schema_is_refused(kit, api):
    from pydantic import BaseModel

    class Order(BaseModel):
        total: int

    durable.function(id="t", on=durable.Event("tests/order", schema=Order))(
        lambda ctx: None
    )
    wrong = api.post("events", {"name": "tests/order", "data": {"total": "much"}})
    assert "total" in problem(wrong, 422, "invalid-payload")["detail"]


BAD = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"name": "\xff"}',
    "NaN": b'{"name": "tests/x", "data": {"n": NaN}}',
    "infinity": b'{"name": "tests/x", "data": {"n": -Infinity}}',
    "a number without end": b'{"name": "tests/x", "data": {"n": 1e400}}',
    "a name twice": b'{"name": "tests/x", "name": "tests/y"}',
    "NUL": b'{"name": "tests/x", "data": {"n": "\\u0000"}}',
    "NUL in a name": b'{"name": "tests/\\u0000"}',
    "half a character": b'{"name": "tests/x", "data": {"n": "\\ud800"}}',
    "5,000 digits": b'{"name": "tests/x", "data": {"n": ' + b"9" * 5000 + b"}}",
    "too deep": b'{"name":"tests/x","data":{"n":' + b"[" * 200 + b"]" * 200 + b"}}",
    "far too deep": b'{"name":"x","data":{"n":' + b"[" * 90_000 + b"]" * 90_000 + b"}}",
    "a text": b'"tests/x"',
    "null": b"null",
    "a list of lists": b"[[]]",
    "a reserved name": b'{"name": "durable/cron"}',
    "a wildcard": b'{"name": "tests/*"}',
    "data that is no object": b'{"name": "tests/x", "data": []}',
    "a time without a zone": b'{"name": "tests/x", "ts": "2026-01-01T00:00:00"}',
    "a time too far": b'{"name": "tests/x", "ts": "9999-12-31T23:59:59-12:00"}',
    "a time too early": b'{"name": "tests/x", "ts": "0001-01-01T00:00:00+14:00"}',
    "an unknown field": b'{"name": "tests/x", "to": "me"}',
    "a long name": b'{"name": "' + b"x" * 256 + b'"}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_with_a_reason(kit, api, body):
    response = api.post("events", body or b" ")
    assert 400 <= response.status_code < 500
    problem(response, response.status_code, response.json()["code"])
    lines = api.post("events", b'{"name": "tests/good"}\n' + body, LINES)
    if body:
        assert 400 <= lines.status_code < 500
        assert not Event.objects.exists()


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
     "application/json; charset=utf-16", "application/xml", "", "nonsense"],
)  # fmt: skip
def test_other_content_types_are_refused(kit, api, kind):
    response = api.post("events", b'{"name": "tests/x"}', kind)
    problem(response, 415, "unsupported-media-type")


def test_one_per_line_format_is_for_events_only(kit, api, sleeper):
    response = api.post(f"functions/{sleeper.id}/runs", b'{"data": {}}', LINES)
    problem(response, 415, "unsupported-media-type")


def test_event_too_large_and_too_many_events_are_refused(kit, api):
    with limits(MAX_EVENT_BYTES=100, MAX_EVENTS=2):
        large = {"name": "tests/x", "data": {"text": "x" * 100}}
        found = problem(api.post("events", large), 422, "invalid-payload")
        assert "MAX_EVENT_BYTES" in found["detail"]
        many = [{"name": "tests/x"}] * 3
        found = problem(api.post("events", many), 413, "limit-exceeded")
        assert "MAX_EVENTS" in found["detail"]
        lines = b'{"name": "tests/x"}\n' * 3
        problem(api.post("events", lines, LINES), 413, "limit-exceeded")
    assert not Event.objects.exists()


class Untouched(io.BytesIO):
    """A stream that must not be read to its end."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def read(self, size: int | None = -1) -> bytes:
        assert 0 < size <= self.left, "more bytes were read than allowed"
        self.left -= size
        return b"x" * size


def test_too_large_body_is_refused_before_it_is_read(kit, api):
    with limits(MAX_REQUEST_BYTES=1000):
        problem(api.post("events", b"x" * 1001), 413, "limit-exceeded")
        # The length alone is refused: nothing is read.
        response = api.client.generic(
            "POST",
            "/durable/api/v1/events",
            content_type="application/json",
            headers=api.headers,
            **{"wsgi.input": Untouched(0), "CONTENT_LENGTH": "999999999"},
        )
        problem(response, 413, "limit-exceeded")


def test_body_of_very_many_small_values_is_refused_before_it_is_parsed(
    kit, api, monkeypatch
):
    def parsed(*args, **kwargs):
        raise AssertionError("it was parsed")

    body = b"[" + b"{}," * http_input.MOST_VALUES + b"{}]"
    monkeypatch.setattr(http_input, "_decode", parsed)
    problem(api.post("events", body), 413, "limit-exceeded")


def test_commas_inside_of_texts_are_no_values(kit, api):
    body = {"name": "tests/prose", "data": {"text": ',[{"\\' * 60_000}}
    assert api.post("events", body).status_code == 202
    with limits(MAX_REQUEST_BYTES=2**21, MAX_EVENT_BYTES=2**21):
        body["data"]["text"] *= 2
        assert api.post("events", body).status_code == 202


def test_codec_tags_in_a_request_are_plain_data(kit, api):
    data = {"$durable": "model", "value": ["auth.user", 1]}
    (id,) = api.post("events", {"name": "tests/tag", "data": data}).json()["ids"]
    assert Event.objects.get(pk=id).data == data


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.dictionaries(st.text(), VALUES))
def test_accepted_data_is_stored_and_returned_equal(kit, api, data):
    response = api.post("events", {"name": "tests/any", "data": data})
    if response.status_code != 202:  # a NUL, or a value that it cannot hold
        problem(response, 422, "invalid-payload")
        return
    (id,) = response.json()["ids"]
    back = Event.objects.get(pk=id).data
    assert back == data
    assert canonical(back) == canonical(data), "the types are equal too"


# Signals


def test_signal_resumes_the_waiting_run(kit, api):
    @durable.function(id="tests.waits")
    def waits(ctx: durable.Context) -> Any:
        return ctx.step.wait_for_signal("go", "door 7", timeout="1d")

    run = waits.enqueue()
    kit.run_until_idle()
    body = {"data": {"open": True}}
    assert api.post("signals/door 7", body).json() == {"run": str(run.pk)}
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"open": True}
    assert api.post("signals/door 7", body).json() == {"run": None}
    problem(api.post("signals/%00"), 422, "invalid")
    problem(api.post("signals/x", b'{"data": NaN}'), 422, "invalid-payload")


def test_signal_may_have_a_slash_in_its_name(kit, api):
    @durable.function(id="tests.waits")
    def waits(ctx: durable.Context) -> Any:
        return ctx.step.wait_for_signal("go", "order/7/paid", timeout="1d")

    run = waits.enqueue()
    kit.run_until_idle()
    told = api.post("signals/order/7/paid", {"data": 1}).json()
    assert told == {"run": str(run.pk)}
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 1
