"""Responses to deliveries, and their effects."""

from __future__ import annotations

import hmac
import json
import signal
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import DatabaseError, connection
from django.test import (
    AsyncRequestFactory,
    Client,
    RequestFactory,
    override_settings,
)

from durable_jobs import durable
from durable_jobs.events import send_event
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from durable_jobs.webhooks import delivery as deliveries
from durable_jobs.webhooks import views
from tests.webhooks.conftest import Post, github

Hook = Callable[..., durable.Function]


def test_delivery_starts_a_run_with_its_body(kit: Kit, hook: Hook, post: Post) -> None:
    hook()
    answer = post({"order": 7}, X_GitHub_Delivery="d-1")
    assert answer.status_code == 202
    assert json.loads(answer.content) == {"ids": ["webhook:acme:d-1"]}
    kit.run_until_idle()
    assert Run.objects.get().result() == ["webhook/acme", {"order": 7}]
    event = Event.objects.get()
    assert (event.pk, event.source) == ("webhook:acme:d-1", "webhook")
    assert answer["Cache-Control"].count("no-store") == 1


def test_repeated_delivery_starts_nothing_and_is_accepted(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook()
    answers = [post({"n": 1}, X_GitHub_Delivery="d-1") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert Run.objects.count() == Event.objects.count() == 1
    post({"n": 1}, X_GitHub_Delivery="d-2")
    assert Run.objects.count() == 2


def test_paths_may_get_deliveries_with_the_same_id(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook()
    hook("acme/other", id="other")
    post({}, X_GitHub_Delivery="1")
    post({}, "acme/other", X_GitHub_Delivery="1")
    assert Run.objects.count() == 2


@pytest.mark.parametrize("delivery", ["x" * 300, "a\tb", "é\x85"])
def test_delivery_id_that_no_event_can_have_is_hashed(
    kit: Kit, hook: Hook, post: Post, delivery: str
) -> None:
    hook()
    for _ in range(2):
        assert post({}, X_GitHub_Delivery=delivery).status_code == 202
    assert Event.objects.get().pk.startswith("webhook:acme:")


def test_delivery_without_an_id_is_always_new(kit: Kit, hook: Hook, post: Post) -> None:
    hook()
    post({})
    post({})
    assert Run.objects.count() == 2


def test_functions_of_the_path_and_of_the_event_all_start_once(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook()
    hook(id="second")
    durable.function(id="listens", on=durable.Event("webhook/*"))(lambda ctx: None)
    durable.function(
        id="both",
        on=[
            durable.Webhook("acme", verify=durable.verify.GitHub("correct horse")),
            durable.Event("webhook/acme"),
        ],
    )(lambda ctx: None)
    post({})
    found = Run.objects.order_by("function").values_list("function", flat=True)
    assert list(found) == ["both", "hooked", "listens", "second"]


def test_events_with_the_names_of_webhooks_cannot_be_sent(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook()
    for send in (kit.send, durable.send):
        with pytest.raises(durable.ConfigurationError, match="'webhook/'"):
            send("webhook/acme")
    forged = durable.NewEvent("webhook/acme", {})
    hook("other", id="other", transform=lambda body, headers: forged)
    assert post({}, "other").status_code == 422
    assert not Run.objects.exists()


# Refused deliveries


def test_invalid_signatures_all_get_the_same_response(
    kit: Kit, hook: Hook, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    hook()
    answers = [
        post({}, signed=False),
        post({}, signed=False, X_Hub_Signature_256="sha256=00"),
        post({}, signed=False, X_Hub_Signature_256="nonsense"),
        post({}, signed=False, X_Hub_Signature_256=f"sha256={github(b'[]')}"),
        post(b"no json", signed=False),
        post(b"", signed=False, kind="text/plain"),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert not Event.objects.exists()
    assert "there is no signature" in caplog.text
    assert "the signature does not match" in caplog.text
    assert "correct horse" not in caplog.text


def test_unknown_path_is_not_found_by_any_method(hook: Hook, post: Post) -> None:
    hook()
    for path in ("acm", "acme/", "acme/x", "ACME", "acme%2f", "../acme", "a" * 2000):
        assert post({}, path).status_code == 404
    assert Client().get("/durable/webhooks/acm").status_code == 404


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_other_methods_are_refused(hook: Hook, method: str) -> None:
    hook()
    answer = getattr(Client(), method)("/durable/webhooks/acme")
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_too_large_body_is_refused_before_it_is_read(
    kit: Kit, hook: Hook, post: Post, settings: Any
) -> None:
    hook()
    settings.DURABLE_JOBS = {"MAX_EVENT_BYTES": 100}
    assert post(b'"' + b"x" * 98 + b'"').status_code == 422
    answer = post(b'"' + b"x" * 99 + b'"')
    assert answer.status_code == 413
    assert b"100 bytes" in answer.content

    class Unread:
        def read(self, *args: Any) -> bytes:
            raise AssertionError("it was read")

    request = RequestFactory().post("/", b"", content_type="application/json")
    request.META["CONTENT_LENGTH"] = "101"
    request.META["HTTP_X_HUB_SIGNATURE_256"] = "sha256=00"
    request._stream = Unread()  # type: ignore[assignment]  # all that is asked of it
    assert views.receive(request, "acme").status_code == 413


def test_body_of_unknown_length_is_read_up_to_the_limit(
    kit: Kit, hook: Hook, settings: Any
) -> None:
    hook()
    settings.DURABLE_JOBS = {"MAX_EVENT_BYTES": 100}
    for size, status in ((90, 202), (102, 413)):
        raw = b'{"a": "' + b"x" * (size - 9) + b'"}'
        request = AsyncRequestFactory().post(
            "/",
            raw,
            content_type="application/json",
            headers={"X-Hub-Signature-256": "sha256=" + github(raw)},
        )
        del request.META["CONTENT_LENGTH"]
        assert views.receive(request, "acme").status_code == status


def test_body_that_middleware_has_read_is_taken_from_django(
    kit: Kit, hook: Hook
) -> None:
    hook()
    request = RequestFactory().post(
        "/",
        b"{}",
        content_type="application/json",
        headers={"X-Hub-Signature-256": "sha256=" + github(b"{}")},
    )
    assert request.body == b"{}"
    assert views.receive(request, "acme").status_code == 202


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "", "multipart/form-data; boundary=x", "application/xml", "json",
     "application/json; charset=utf-16", "application/x-yaml"],
)  # fmt: skip
def test_other_content_types_are_refused(hook: Hook, post: Post, kind: str) -> None:
    hook()
    assert post(b"{}", kind=kind).status_code == 415


@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=UTF-8", "application/vnd.acme+json",
     "Application/JSON", "application/cloudevents+json"],
)  # fmt: skip
def test_json_has_several_names(kit: Kit, hook: Hook, post: Post, kind: str) -> None:
    hook()
    assert post(b"{}", kind=kind).status_code == 202


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b" ", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": NaN}', "NaN is not allowed"),
        (b"[-Infinity]", "-Infinity is not allowed"),
        (b'{"a": 1e999}', "finite"),
        (b'{"a": 1, "b": 2, "a": 1}', "'a' occurs twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' occurs twice"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"\xff\xfe{}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 101 + b"]" * 101, "deep"),
        (b"[" * 100_000, "deep"),
        (b"[" * 200_000 + b"]" * 200_000, "deep"),
        (b"1" * 5000, "not JSON"),
    ],
)
def test_invalid_json_is_refused_with_the_reason(
    kit: Kit, hook: Hook, post: Post, raw: bytes, words: str
) -> None:
    hook()
    answer = post(raw)
    assert answer.status_code == 400
    assert words in json.loads(answer.content)["error"]
    assert not Event.objects.exists()


# Forms


def test_forms_are_read_as_slack_sends_them(kit: Kit, hook: Hook, post: Post) -> None:
    hook()
    raw = urlencode(
        [("text", "a b"), ("empty", ""), ("x", "1"), ("x", "2"), ("x", "3")]
    )
    kind = "application/x-www-form-urlencoded"
    assert post(raw.encode(), kind=kind).status_code == 202
    expected = {"text": "a b", "empty": "", "x": ["1", "2", "3"]}
    assert Event.objects.get().data == expected


@pytest.mark.parametrize(
    "raw", [b"a", b"a=%ff", b"a=\xff", b"a=%00", b"&".join([b"a=1"] * 1001)]
)
def test_form_that_cannot_be_read_is_refused(
    kit: Kit, hook: Hook, post: Post, raw: bytes
) -> None:
    hook()
    kind = "application/x-www-form-urlencoded"
    assert post(raw, kind=kind).status_code == 400


# Transforms


def test_transform_makes_the_event(kit: Kit, hook: Hook, post: Post) -> None:
    def paid(body: Any, headers: Any) -> durable.NewEvent:
        data = {"id": body["order"], "kind": headers["x-acme-KIND"]}
        return durable.NewEvent("shop/order.paid", data)

    hook(transform=paid)
    durable.function(id="listens", on=durable.Event("shop/*"))(lambda ctx: None)
    assert post({"order": 7}, X_Acme_Kind="a", X_GitHub_Delivery="1").status_code == 202
    kit.run_until_idle()
    result = Run.objects.get(function="hooked").result()
    assert result == ["shop/order.paid", {"id": 7, "kind": "a"}]
    assert Run.objects.filter(function="listens").exists()
    assert Event.objects.get().pk == "webhook:acme:1"


def test_transform_may_return_many_events_or_none(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook(transform=lambda body, _: [durable.NewEvent("a/b", one) for one in body])
    answer = post([{"n": 1}, {"n": 2}], X_GitHub_Delivery="1")
    ids = ["webhook:acme:1", "webhook:acme:1:1"]
    assert json.loads(answer.content) == {"ids": ids}
    assert Run.objects.count() == 2
    assert post([], X_GitHub_Delivery="2").status_code == 204
    assert Event.objects.count() == 2


def test_delivery_may_be_ignored(kit: Kit, hook: Hook, post: Post) -> None:
    hook(transform=lambda body, headers: None)
    answer = post({})
    assert (answer.status_code, answer.content) == (204, b"")
    assert not Event.objects.exists()


def test_id_from_the_transform_counts(kit: Kit, hook: Hook, post: Post) -> None:
    hook(transform=lambda body, _: durable.NewEvent("a/b", body, id=body["id"]))
    post({"id": "own"}, X_GitHub_Delivery="1")
    post({"id": "own"}, X_GitHub_Delivery="2")
    assert Event.objects.get().pk == "own"
    assert Run.objects.count() == 1


def test_mapping_makes_the_event(kit: Kit, hook: Hook, post: Post) -> None:
    hook(
        transform={
            "name": "acme/{body.type}",
            "id": "acme-{body.id}",
            "data": {
                "first": "{body.items.0.sku}",
                "kind": "{headers.x-kind}",
                "none": "{body.none.at.all}",
                "all": ["{body.items}", 1],
                "text": "no. {body.id}",
            },
        }
    )
    post({"type": "paid", "id": 7, "items": [{"sku": "a"}]}, X_Kind="k")
    event = Event.objects.get()
    assert (event.pk, event.name) == ("acme-7", "acme/paid")
    assert event.data == {
        "first": "a",
        "kind": "k",
        "none": None,
        "all": [[{"sku": "a"}], 1],
        "text": "no. 7",
    }


def test_mapping_without_a_name_keeps_the_name_of_the_path(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook(transform={"data": "{body.inner}"})
    post({"inner": {"a": 1}})
    assert Event.objects.get().name == "webhook/acme"
    assert Event.objects.get().data == {"a": 1}


FAILING: list[Any] = [
    lambda body, headers: 1 / 0,
    lambda body, headers: body["nothing"],
    lambda body, headers: {"name": "a/b"},
    lambda body, headers: [durable.NewEvent("a/b"), "not one"],
    lambda body, headers: [durable.NewEvent("a/b"), durable.NewEvent("durable/cron")],
    lambda body, headers: durable.NewEvent("inngest/x"),
    lambda body, headers: durable.NewEvent(body["a"]),
    lambda body, headers: durable.NewEvent("a/b", [1]),
    lambda body, headers: durable.NewEvent("a/b", {"x": object()}),
    lambda body, headers: [durable.NewEvent("a/b")] * 6000,
    {"name": "acme/{body.type}"},
    {"name": "{body.nothing}"},
    {"data": "{body.a}"},
    lambda payload, headers: payload.clear() or payload["a"],
]


@pytest.mark.parametrize("transform", FAILING, ids=range(len(FAILING)))
def test_failing_transform_stores_only_the_failure_event(
    kit: Kit, hook: Hook, post: Post, transform: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hook(transform=transform)
    answers = [post({"a": 1}, X_GitHub_Delivery="d") for _ in range(2)]
    assert {answer.status_code for answer in answers} == {422}
    assert json.loads(answers[0].content) == {"error": deliveries.FAILED}
    event = Event.objects.get()
    assert event.name == "durable/webhook.failed"
    assert event.data["path"] == "acme"
    assert event.data["delivery"] == "d"
    assert event.data["body"] == {"a": 1}
    assert set(event.data["error"]) == {"type", "message"}
    assert not Run.objects.exists()
    assert "Webhook acme: a delivery failed" in caplog.text


def test_function_may_start_on_a_failure(kit: Kit, hook: Hook, post: Post) -> None:
    hook(transform=FAILING[0])
    durable.function(id="alarm", on=durable.Event("durable/webhook.failed"))(
        lambda ctx: ctx.event.data["error"]["type"]
    )
    post({})
    kit.run_until_idle()
    assert Run.objects.get().result() == "ZeroDivisionError"


def test_body_that_is_no_object_needs_a_transform(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook()
    assert post([1]).status_code == 422
    assert "dict" in Event.objects.get().data["error"]["message"]


def test_failure_that_is_too_large_with_its_body_is_stored_without(
    kit: Kit, hook: Hook, post: Post, settings: Any
) -> None:
    settings.DURABLE_JOBS = {"MAX_EVENT_BYTES": 400}
    hook(transform=FAILING[0])
    assert post({"a": "x" * 380}).status_code == 422
    assert "body" not in Event.objects.get().data


def test_database_failure_is_not_blamed_on_the_delivery(
    kit: Kit, hook: Hook, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook()

    def broken(*args: Any, **kwargs: Any) -> list[str]:
        raise DatabaseError("gone")

    monkeypatch.setattr(send_event, "send", broken)
    with pytest.raises(DatabaseError):
        post({})


@pytest.mark.django_db(transaction=True)
def test_delivery_works_with_atomic_requests(
    kit: Kit, hook: Hook, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    hook(transform=lambda body, _: durable.NewEvent(body["name"], id="1"))
    assert post({"name": "a/b"}).status_code == 202
    # The id is taken, which shows only when the event is written.
    assert post({"name": "a/other"}).status_code == 422
    names = Event.objects.values_list("name", flat=True)
    assert sorted(names) == ["a/b", "durable/webhook.failed"]


# Authentication


def test_callable_may_verify(kit: Kit, hook: Hook, post: Post) -> None:
    def mine(request: Any) -> bool:
        return bool(request.body == b"{}" and request.headers["X-Mine"] == "1")

    hook(verify=mine)
    assert post(b"{}", signed=False, X_Mine="1").status_code == 202
    assert post(b"{ }", signed=False, X_Mine="1").status_code == 401
    assert post(b"{}", signed=False).status_code == 401  # it raises KeyError


@pytest.mark.parametrize("said", [None, 1, "yes", object(), False])
def test_result_of_a_verifier_must_be_true(
    kit: Kit, hook: Hook, post: Post, said: Any
) -> None:
    hook(verify=lambda request: said)
    assert post({}).status_code == 401


@pytest.mark.parametrize("where", ["verify", "transform"])
def test_worker_signal_in_a_callable_of_a_webhook_rejects_no_delivery(
    kit: Kit,
    hook: Hook,
    post: Post,
    where: str,
    request: pytest.FixtureRequest,
) -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(-number))
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, before))
    hook(**{where: lambda *_: signal.raise_signal(signal.SIGTERM)})
    with pytest.raises(SystemExit):
        post({})
    assert not Event.objects.exists()


def test_setting_without_a_secret_refuses_all_deliveries(
    kit: Kit, hook: Hook, post: Post, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hook(verify=durable.verify.GitHub(durable.verify.Setting("NO_SUCH_SECRET")))
    assert post({}).status_code == 401
    assert "NO_SUCH_SECRET" in caplog.text


def test_unauthenticated_deliveries_are_accepted_on_request(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook(verify=durable.verify.Unsigned(id_header="X-Id"))
    for _ in range(2):
        assert post({}, signed=False, X_Id="1").status_code == 202
    assert Run.objects.count() == 1


def test_challenge_of_slack_is_answered(kit: Kit, hook: Hook, post: Post) -> None:
    hook(verify=durable.verify.Slack("hush"))
    raw = b'{"type": "url_verification", "challenge": "<b>3eZbr"}'
    stamp = str(int(kit.now().timestamp()))
    signed = hmac.new(b"hush", f"v0:{stamp}:".encode() + raw, "sha256").hexdigest()
    headers = {"X_Slack_Request_Timestamp": stamp, "X_Slack_Signature": f"v0={signed}"}
    answer = post(raw, signed=False, **headers)
    assert (answer.status_code, answer.content) == (200, b"<b>3eZbr")
    assert answer["Content-Type"].startswith("text/plain")
    headers["X_Slack_Signature"] = "v0=00"
    assert post(raw, signed=False, **headers).status_code == 401
    assert not Event.objects.exists()


def test_deliveries_of_an_address_are_limited_with_a_retry_after(
    kit: Kit, hook: Hook, post: Post
) -> None:
    hook()
    with override_settings(DURABLE_JOBS={"WEBHOOK_RATE": "2/1m"}):
        # Failed signatures count too, which stops guessing.
        assert post({"n": 1}).status_code == 202
        assert post({"n": 2}, signed=False).status_code == 401
        refused = post({"n": 3})
        assert refused.status_code == 429
        assert 1 <= int(refused["Retry-After"]) <= 60
        assert Event.objects.count() == 1
        # Another path has its own count.
        hook("other", id="other")
        assert post({"n": 4}, "other").status_code == 202
        kit.advance("2m")
        assert post({"n": 3}).status_code == 202
