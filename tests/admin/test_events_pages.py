"""The pages of events, and sending events: again, changed, or new."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pydantic import BaseModel

from durable_jobs import durable, ids
from durable_jobs.admin.events.snippets import snippets
from durable_jobs.admin.payloads import stored
from durable_jobs.models import Event, Run, Step
from durable_jobs.queries import events
from tests.admin.conftest import Page, list_of, make_events, make_runs, page_of
from tests.admin.people import (
    EVIL,
    harmless,
    labelled,
    member,
    page,
    posted,
    token,
    written,
)

pytestmark = pytest.mark.django_db

SEND = reverse("admin:durable_jobs_event_send")


def again(event: Event) -> str:
    return reverse("admin:durable_jobs_event_resend", args=[quote(event.pk)])


@pytest.fixture
def sender(db) -> Client:
    return member("ann", "view_event", "view_run", "view_payload", "send_event")


@pytest.fixture
def listener(durable_kit):
    @durable.function(id="tests.listener", on=durable.Event("tests/go"))
    def listener(ctx):
        return ctx.event.data

    return listener


# Effects of an event


def test_event_shows_the_runs_it_resumed_and_ended(durable_kit, sender):
    @durable.function(
        id="tests.waiter",
        on=durable.Event("tests/begin"),
        cancel_on=durable.CancelOn("tests/stop", match="data.n"),
    )
    def waiter(ctx):
        ctx.step.wait_for_event("answer", "tests/answer", match="data.n")
        ctx.step.wait_for_any("either", {"a": durable.EventWait("tests/other")})
        ctx.step.sleep("on", "1d")

    for n in (1, 2):
        durable_kit.send("tests/begin", {"n": n})
    durable_kit.run_until_idle()
    answer = durable_kit.send("tests/answer", {"n": 1})
    durable_kit.run_until_idle()
    other = durable_kit.send("tests/other", {})
    durable_kit.run_until_idle()
    first, second = Run.objects.order_by("pk")
    for event, step in ((answer, "answer"), (other, "either")):
        shown = page(sender, page_of(Event.objects.get(pk=event)))
        assert "Runs woken" in shown.text
        assert step in shown.text
        assert page_of(first) in shown.links()
        assert page_of(second) not in shown.links()
    stop = durable_kit.send("tests/stop", {"n": 2})
    durable_kit.run_until_idle()
    shown = page(sender, page_of(Event.objects.get(pk=stop)))
    assert "Runs cancelled" in shown.text
    assert page_of(second) in shown.links()
    assert "Runs woken" not in shown.text


def test_runs_resumed_by_an_event_are_found_by_an_index(durable_kit):
    rows = [ids.new_id() for _ in range(500)]
    Step.objects.bulk_create(
        Step(id=one, run_id=one, key="k", name="k", kind="run", status="completed")
        for one in rows
    )
    with CaptureQueriesContext(connection) as captured:
        events.woken("x")
    [sql] = [one["sql"] for one in captured]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE durable_jobs_step")
            cursor.execute(f"EXPLAIN {sql}")
        else:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert "durable_step_event" in plan, plan


def test_page_of_an_event_asks_as_often_for_many_rows_as_for_few(sender):
    event = make_events(1)[0]

    def queries(count: int) -> int:
        make_runs(count, event_id=event.pk)
        reason = f"the event {event.name} ({event.pk})"
        make_runs(count, status="cancelled", reason=reason)
        with CaptureQueriesContext(connection) as captured:
            page(sender, page_of(event))
        return len(captured)

    few = queries(1)
    assert queries(events.MOST + 10) == few
    # The session, the viewer and their permissions; the event, and the runs that it
    # started, resumed and ended.
    assert few == 8


# Sending again


def test_event_is_sent_again_as_a_new_one(listener, durable_kit, sender):
    old = Event.objects.get(pk=durable_kit.send("tests/go", {"n": 7}, user={"id": 1}))
    durable_kit.run_until_idle()
    assert again(old) in page(sender, page_of(old)).links()
    response = posted(sender, again(old), token=token(page(sender, again(old))))
    new = Event.objects.exclude(pk=old.pk).get()
    assert response["Location"] == page_of(new)
    assert (new.name, new.data, new.user) == (old.name, old.data, old.user)
    assert new.source == "admin"
    durable_kit.run_until_idle()
    assert Run.objects.filter(event_id=new.pk).get().output == {"n": 7}
    texts = {one.object_id: one.change_message for one in LogEntry.objects.all()}
    assert texts[old.pk] == f"Sent again as {new.pk}."
    assert old.pk in texts[new.pk]


def test_form_posted_twice_sends_once(listener, durable_kit, sender):
    old = Event.objects.get(pk=durable_kit.send("tests/go", {"n": 7}))
    form = token(page(sender, again(old)))
    first, second = (posted(sender, again(old), token=form) for _ in range(2))
    assert first["Location"] == second["Location"]
    assert Event.objects.count() == 2
    durable_kit.run_until_idle()
    assert Run.objects.count() == 2
    assert LogEntry.objects.count() == 2


def test_typed_data_is_sent_again_unchanged(listener, durable_kit, sender):
    data = {"at": durable_kit.now(), "whom": User.objects.get()}
    old = Event.objects.get(pk=durable_kit.send("tests/go", data))
    posted(sender, again(old), token=token(page(sender, again(old))))
    assert Event.objects.exclude(pk=old.pk).get().data == data


@pytest.mark.parametrize("name", ["durable/cron", "inngest/x"])
def test_projects_own_events_are_not_sent_again(sender, name):
    event = make_events(1, name=name)[0]
    shown = page(sender, page_of(event))
    assert again(event) not in shown.links()
    assert "curl" not in shown.text
    form = token(page(sender, again(event)))
    response = posted(sender, again(event), token=form)
    assert response.status_code == 422
    assert "reserved" in response.content.decode()
    assert Event.objects.count() == 1


@pytest.mark.parametrize("form", ["", "x", "tests/go", "00000000"])
def test_id_that_no_form_had_is_refused(listener, durable_kit, sender, form):
    old = Event.objects.get(pk=durable_kit.send("tests/go", {}))
    assert posted(sender, again(old), token=form).status_code == 422
    assert Event.objects.count() == 1


# Sending


def test_event_is_sent_by_its_name_and_data(listener, durable_kit, sender):
    assert SEND in page(sender, list_of("event")).links()
    shown = page(sender, SEND)
    assert labelled(shown)
    data = '{"n": [1, {"ü": null}]}'
    values = {"name": "tests/go", "input": data, "token": token(shown)}
    response = posted(sender, SEND, **values)
    event = Event.objects.get()
    assert response["Location"] == page_of(event)
    assert event.data == json.loads(data)
    durable_kit.run_until_idle()
    assert Run.objects.get().output == json.loads(data)
    assert LogEntry.objects.get().object_id == event.pk
    again_ = posted(sender, SEND, **{**values, "input": '{"other": 1}'})
    assert again_["Location"] == page_of(event)
    assert "sent before" in page(sender, page_of(event)).text
    assert Event.objects.count() == 1


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("tests/go", "{", "not JSON"),
        ("tests/go", '{"a": NaN}', "NaN"),
        ("tests/go", '{"a": 1, "a": 2}', "twice"),
        ("tests/go", "[1]", "to be a dict"),
        ("tests/go", '"text"', "to be a dict"),
        ("tests/go", '{"a": "\\u0000"}', ""),
        ("tests/go", '{"a": "\\ud800"}', ""),
        ("tests/go", "[" * 200_000, "deep"),
        ("tests/go", '{"$durable": "nonsense", "value": 1}', "tag"),
        ("durable/cron", "{}", "reserved"),
        ("tests/*", "{}", "wildcard"),
        ("", "{}", "required"),
        ("tests/go\x00", "{}", "ull characters"),
        (EVIL, "{", "not JSON"),
    ],
)
def test_invalid_event_is_reported_and_its_text_is_kept(sender, name, data, said):
    values = {"name": name, "input": data, "token": str(ids.new_id())}
    response = posted(sender, SEND, **values)
    assert response.status_code in (302, 422)
    if response.status_code == 302:  # the codec can store it
        assert said == ""
        return
    text = response.content.decode()
    assert said in text
    shown = Page(text)
    assert harmless(shown)
    assert token(shown) == values["token"]
    assert written(shown) == data
    assert Event.objects.count() == 0


def test_event_too_large_is_refused(sender, settings):
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MAX_EVENT_BYTES": 100}
    values = {"name": "tests/go", "input": json.dumps({"a": "x" * 200})}
    response = posted(sender, SEND, **values, token=str(ids.new_id()))
    assert response.status_code == 422
    assert "MAX_EVENT_BYTES" in response.content.decode()


def test_event_is_edited_and_sent(listener, durable_kit, sender):
    old = Event.objects.get(pk=durable_kit.send("tests/go", {"n": 7}))
    (address,) = page(sender, page_of(old)).links(f"event={old.pk}")
    shown = page(sender, address)
    assert '"n": 7' in shown.text
    posted(sender, address, name="tests/go", input='{"n": 8}', token=token(shown))
    assert Event.objects.exclude(pk=old.pk).get().data == {"n": 8}


def test_typed_data_is_edited_by_its_tags(listener, durable_kit, sender):
    moment = durable_kit.now()
    old = Event.objects.get(pk=durable_kit.send("tests/go", {"at": moment, "n": 1}))
    address = f"{SEND}?event={old.pk}"
    shown = page(sender, address)
    changed = written(shown).replace('"n": 1', '"n": 2')
    posted(sender, address, name="tests/go", input=changed, token=token(shown))
    new = Event.objects.exclude(pk=old.pk).get()
    assert new.data == {"at": moment, "n": 2}


class Amount(BaseModel):
    """The data of a test's event."""

    cents: int
    note: str = "none"


def test_typed_events_have_a_form_with_fields(durable_kit, sender):
    @durable.function(id="tests.f", on=durable.Event("tests/paid", schema=Amount))
    def f(ctx):
        return ctx.event.data.cents

    address = f"{SEND}?name=tests%2Fpaid"
    shown = page(sender, address)
    assert labelled(shown)
    names = {attrs.get("name") for tag, attrs in shown.tags if tag == "input"}
    assert {"data-cents", "data-note", "name", "token"} <= names
    form = {"name": "tests/paid", "token": token(shown), "data-note": "ü"}
    wrong = sender.post(address, {**form, "data-cents": "x"})
    assert wrong.status_code == 422
    assert "ü" in wrong.content.decode()
    assert sender.post(address, {**form, "data-cents": "5"}).status_code == 302
    assert Event.objects.get().data == {"cents": 5, "note": "ü"}
    durable_kit.run_until_idle()
    assert Run.objects.get().output == 5
    (json_form,) = shown.links("as=json")
    assert "input" in {attrs.get("name") for tag, attrs in page(sender, json_form).tags}
    # The same rules for JSON: the schema validates.
    refused = posted(
        sender, json_form, name="tests/paid", input="{}", token=str(ids.new_id())
    )
    assert refused.status_code == 422
    assert "does not fit Amount" in refused.content.decode()


# Permissions


def test_user_who_may_not_send_sees_no_button_and_is_refused(listener, durable_kit):
    event = Event.objects.get(pk=durable_kit.send("tests/go", {}))
    viewer = member("bob", "view_event", "view_run", "view_payload")
    for address in (list_of("event"), page_of(event)):
        links = page(viewer, address).links()
        assert not [link for link in links if "send" in link]
    for address in (SEND, again(event)):
        assert viewer.get(address).status_code == 403
        values = {"name": "tests/go", "input": "{}", "token": str(ids.new_id())}
        assert viewer.post(address, values).status_code == 403
    assert Event.objects.count() == 1


@pytest.mark.parametrize("permissions", [(), ("send_event",), ("view_run",)])
def test_sending_needs_the_permission_to_view_events(
    listener, durable_kit, permissions
):
    event = Event.objects.get(pk=durable_kit.send("tests/go", {}))
    stranger = member("eve", *permissions)
    for address in (SEND, again(event)):
        assert stranger.get(address).status_code == 403
        assert stranger.post(address, {"token": str(ids.new_id())}).status_code == 403


def test_strangers_are_sent_to_the_login(client):
    event = make_events(1)[0]
    for address in (SEND, again(event)):
        assert "/login/" in client.post(address, {})["Location"]


def test_forms_are_protected_against_other_sites(listener, durable_kit):
    event = Event.objects.get(pk=durable_kit.send("tests/go", {}))
    member("ann", "view_event", "send_event")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    for address in (SEND, again(event)):
        assert strict.post(address, {}).status_code == 403
    assert Event.objects.count() == 1


def test_payloads_stay_hidden_from_senders_without_the_permission(
    listener, durable_kit
):
    event = Event.objects.get(pk=durable_kit.send("tests/go", {"secret": "canary"}))
    blind = member("bob", "view_event", "send_event")
    for address in (page_of(event), f"{SEND}?event={event.pk}", again(event)):
        assert "canary" not in page(blind, address).source
    posted(blind, again(event), token=token(page(blind, again(event))))
    assert Event.objects.filter(data__secret="canary").count() == 2


# Invalid addresses


@pytest.mark.parametrize("key", ["nonsense", "_2F", "%00", "a" * 300])
def test_missing_event_is_not_found(sender, key):
    prefix = list_of("event")
    assert sender.get(f"{prefix}{key}/resend/").status_code == 404
    assert sender.post(f"{prefix}{key}/resend/", {}).status_code == 404
    assert sender.get(f"{SEND}?event={key}").status_code == 404


@pytest.mark.parametrize("key", ["a/b", "ü 1", "send", "x/resend", "50%", EVIL])
def test_events_with_ids_of_the_senders_own_are_sent_again(sender, key):
    event = make_events(1)[0]
    Event.objects.filter(pk=event.pk).update(id=key, data={EVIL: EVIL})
    event = Event.objects.get()
    address = f"{list_of('event')}{quote(key)}/change/"
    shown = page(sender, address)
    assert harmless(shown)
    assert again(event) in shown.links()
    assert harmless(page(sender, again(event)))
    posted(sender, again(event), token=token(page(sender, again(event))))
    assert Event.objects.exclude(pk=key).get().data == {EVIL: EVIL}


# The same as code


def test_event_as_code_is_equivalent(listener, durable_kit, sender, rf):
    data = {"n": 1, "text": "quo\"te ' $HOME `id` \\ ü\n", "deep": {"a": [None, True]}}
    event = Event.objects.get(pk=durable_kit.send("tests/go", data))
    shown = page(sender, page_of(event))
    ids_ = [attrs.get("id") for tag, attrs in shown.tags if tag == "pre"]
    assert {"durable-curl", "durable-python", "durable-pytest"} <= set(ids_)
    curl, python, test = snippets(rf.get("/"), "tests/go", json.dumps(data))
    # A shell passes the arguments to curl unchanged: they are printed, not posted.
    script = curl.text.replace(
        "curl", f"{sys.executable} -c 'import sys;print(sys.argv[-1])'", 1
    )
    printed = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == {"name": "tests/go", "data": data}
    assert "http://testserver/" in curl.text
    assert "/api/v1/events" in curl.text
    before = set(Event.objects.values_list("pk", flat=True))
    exec(python.text, {})  # noqa: S102  # it is what the page says to run
    (new,) = Event.objects.exclude(pk__in=before)
    assert (new.name, new.data) == ("tests/go", data)
    space: dict[str, object] = {}
    exec(test.text, space)  # noqa: S102  # as above
    space["test_tests_go"](durable_kit)
    assert Run.objects.filter(status="completed").count() == 3


def test_typed_values_in_code_are_as_stored(rf, durable_kit):
    event = durable_kit.send("tests/go", {"at": durable_kit.now()})
    event = Event.objects.get(pk=event)
    text = Event.objects.values_list(stored("data"), flat=True).get()
    _curl, python, _test = snippets(rf.get("/"), "tests/go", text)
    assert str(event.data["at"].year) in python.text
    assert "$durable" not in python.text


@pytest.mark.parametrize("text", ["{", "[" * 5000, '{"a": "' + "x" * 200_000 + '"}'])
def test_unreadable_or_too_long_data_is_not_shown_as_code(rf, text):
    assert snippets(rf.get("/"), "tests/go", text) == []
