"""The pages of functions: declarations, health, starting and pausing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pydantic import BaseModel

from durable_jobs import clock, durable, ids
from durable_jobs.admin.functions.views import PAGE_SIZE
from durable_jobs.models import Pause, Run
from durable_jobs.queries import functions
from durable_jobs.testing import Kit
from tests.admin.conftest import Page, list_of, make_runs, page_of
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

LIST = reverse("admin:durable_jobs_functions")
OURS = f"{LIST}?q=tests"


def at(function_id: str, action: str = "") -> str:
    name = f"admin:durable_jobs_function{'_' if action else ''}{action}"
    return reverse(name, args=[quote(function_id)])


def resume(pause: Pause) -> str:
    return reverse("admin:durable_jobs_resume", args=[pause.pk])


@pytest.fixture
def operator(db) -> Client:
    return member(
        "ann",
        "view_run",
        "view_payload",
        "view_schedule",
        "start_run",
        "pause_function",
    )


class Amount(BaseModel):
    """The input of a test's function."""

    cents: int
    note: str = "none"


@pytest.fixture
def declared(durable_kit):
    """Declare a function with nearly every option."""

    @durable.function(
        id="tests.all",
        name="All of it",
        description="What it is for.\n\nAt length.",
        on=[
            durable.Event("tests/go", if_="event.data.n > 0"),
            durable.Cron("0 9 * * 1-5", tz="Europe/Paris"),
            durable.ModelChange(
                "shop.Order", created=True, updated=True, include=["tenant"]
            ),
            durable.Webhook("tests/hook", verify=durable.verify.Unsigned()),
        ],
        concurrency=durable.Concurrency(5, key="event.data.tenant"),
        throttle=durable.Throttle(100, per="1m", burst=10),
        rate_limit=durable.RateLimit(9, per="1h"),
        singleton=durable.Singleton(mode="queue"),
        idempotency="event.data.pk",
        retries=2,
        timeouts=durable.Timeouts(start="5m", finish="1h"),
        cancel_on=durable.CancelOn("tests/stop", match="data.pk"),
        on_failure=lambda ctx: None,
        queue="slow",
        version="v7",
    )
    def everything(ctx):
        return ctx.event.data

    return everything


# Content of the pages


def test_list_shows_functions_and_their_health(declared, operator):
    make_runs(3, function="tests.all", version="v6")
    make_runs(1, function="tests.all", status="failed", version="v7")
    long_ago = clock.now() - timedelta(days=3)
    make_runs(4, function="tests.all", status="failed", queued_at=long_ago)
    text = page(operator, OURS).text
    for part in (
        "All of it", "tests.all", "v7", "What it is for.", "event tests/go if",
        "At 09:00 on Monday through Friday (Europe/Paris)", "webhook tests/hook",
        "shop.Order is created or updated", "5 at a time per event.data",
        "100 starts in 1 m 00 s, 10 at once", "slow",
        "9 starts in 1 h 00 m, others are skipped", "one live run, others wait",
        "4 runs", "1 failed (25 %)", "1 s",
    ):  # fmt: skip
        assert part in text, part
    assert "At length." not in text


def test_page_of_a_function_shows_its_whole_declaration(
    declared, durable_kit, operator
):
    durable_kit.run_until_idle()  # the crons become rows
    make_runs(2, function="tests.all", version="v6")
    shown = page(operator, at("tests.all"))
    for part in (
        "At length.", "retries 2", "15 s, then times 2, up to 2 h 00 m",
        "must start within 5 m 00 s", "must end within 1 h 00 m",
        "on failure tests.all:on_failure", "tests/stop (data.pk)",
        "idempotency key event.data.pk", "v6 \N{MULTIPLICATION SIGN} 2",
        "Europe/Paris", "0 9 * * 1-5", "Newest runs",
    ):  # fmt: skip
        assert part in shown.text, part
    assert set(shown.rows("run")) == {page_of(run) for run in Run.objects.all()}
    assert len(shown.rows("schedule")) == 1


def test_list_is_searched_and_paged(durable_kit, operator):
    for number in range(PAGE_SIZE + 3):
        durable.function(id=f"paged.f{number:03}", name="Paged")(lambda ctx: None)
    first = page(operator, f"{LIST}?q=paged")
    assert first.text.count("paged.f") == PAGE_SIZE
    (following,) = first.links("p=2")
    assert page(operator, LIST + following).text.count("paged.f") == 3
    assert page(operator, f"{LIST}?q=paged+f007").text.count("paged.f") == 1
    assert "No functions." in page(operator, f"{LIST}?q=nothing").text
    for odd in ("p=x", "p=-1", "p=9999", "q=%00", "q=%22%3E%3Cscript%3E"):
        page(operator, f"{LIST}?{odd}")


def test_errors_are_grouped_by_their_type_and_step(durable_kit, operator):
    def broken():
        raise OSError("the disk is full")

    @durable.function(id="tests.f", retries=0)
    def f(ctx):
        if ctx.event.data["own"]:
            raise ValueError("no step")
        ctx.step.run("charge", broken)

    for own in (True, False, False):
        f.enqueue({"own": own})
    durable_kit.run_until_idle()
    latest = functions.latest("tests.f")
    found = [(g.type, g.step, g.count) for g in functions.error_groups(latest)]
    assert found == [("OSError", "charge", 2), ("ValueError", "", 1)]
    text = page(operator, at("tests.f")).text
    assert "OSError the disk is full charge 2" in text
    assert "ValueError no step function body 1" in text


def test_functions_that_the_code_has_lost_are_named(durable_kit, operator):
    with Kit(now=durable_kit.now()):
        for index, limit in enumerate((None, durable.Concurrency(1))):
            lost = durable.function(id=f"tests.lost{index}", concurrency=limit)(
                lambda ctx: None
            )
            lost.enqueue({})
    make_runs(1, function="tests.waits", status="waiting", ended_at=None)
    make_runs(1, function="tests.paused", status="paused", ended_at=None)
    make_runs(1, function="tests.ended")
    shown = page(operator, LIST)
    for name in ("tests.lost0", "tests.lost1", "tests.waits", "tests.paused"):
        assert at(name) in shown.links()
        assert "This function is not deployed" in page(operator, at(name)).text
    assert "tests.ended" not in shown.text
    assert "Start a run" not in page(operator, at("tests.lost0")).text
    for action in ("start", "pause"):
        assert operator.get(at("tests.lost0", action)).status_code == 404


def test_pages_ask_as_often_for_many_rows_as_for_few(durable_kit, operator):
    def queries(address: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            page(operator, address)
        return len(captured)

    durable.function(id="tests.f0")(lambda ctx: None)
    make_runs(1, function="tests.f0")
    make_runs(1, function="tests.f0", status="failed", error={"type": "E"})
    few = queries(LIST), queries(at("tests.f0"))
    for number in range(1, 20):
        durable.function(id=f"tests.f{number}", on=durable.Cron("@daily"))(
            lambda ctx: None
        )
        make_runs(30, function=f"tests.f{number}")
    make_runs(60, function="tests.f0")
    make_runs(60, function="tests.f0", status="failed", error={"type": "E"})
    durable_kit.run_until_idle()
    assert (queries(LIST), queries(at("tests.f0"))) == few
    # The session, the viewer and their permissions. The list: health, pauses, crons,
    # missing functions. The page of a function: runs twice, pauses, errors, crons.
    assert few == (8, 9)


def test_statistics_use_no_more_runs_than_the_page_says(durable_kit, operator):
    durable.function(id="tests.f")(lambda ctx: None)
    make_runs(functions.RECENT + 5, function="tests.f")
    found = functions.health(["tests.f"])["tests.f"]
    assert (found.runs, found.capped) == (functions.RECENT, True)
    assert f"{functions.RECENT}+ runs" in page(operator, OURS).text


# Starting


def test_run_is_started_by_hand(declared, durable_kit, operator):
    durable.function(id="tests.f")(lambda ctx: ctx.event.data)
    (address,) = page(operator, at("tests.f")).links("/start/")
    shown = page(operator, address)
    assert labelled(shown)
    form = {"token": token(shown), "input": '{"n": 7}', "delay": "5m", "priority": "60"}
    response = posted(operator, address, **form)
    run = Run.objects.get()
    assert response["Location"] == page_of(run)
    assert run.due_at == durable_kit.now() + timedelta(minutes=5)
    assert run.run_order == run.due_at - timedelta(seconds=60)
    durable_kit.advance("5m")
    run.refresh_from_db()
    assert run.output == {"n": 7}
    entry = LogEntry.objects.get()
    assert entry.object_id == str(run.pk)
    assert entry.user == User.objects.get()


def test_start_posted_twice_starts_once(durable_kit, operator):
    durable.function(id="tests.f")(lambda ctx: None)
    address = at("tests.f", "start")
    form = {"token": token(page(operator, address)), "input": "{}"}
    first, second = (posted(operator, address, **form) for _ in range(2))
    assert first["Location"] == second["Location"] == page_of(Run.objects.get())
    assert LogEntry.objects.count() == 1
    changed = posted(operator, address, **{**form, "input": '{"n": 1}'})
    assert changed.status_code == 422
    assert "used with other data" in changed.content.decode()


def test_custom_key_leads_to_the_existing_run(durable_kit, operator):
    f = durable.function(id="tests.f")(lambda ctx: None)
    run = f.using(key="order-7").enqueue({"n": 1})
    form = {"token": str(ids.new_id()), "input": '{"n": 1}', "key": "order-7"}
    response = posted(operator, at("tests.f", "start"), **form)
    assert response["Location"] == page_of(run)
    assert "No run was started" in page(operator, page_of(run)).text
    assert Run.objects.count() == 1
    assert LogEntry.objects.count() == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"input": "{"}, "not JSON"),
        ({"input": "[1]"}, "to be a dict"),
        ({"input": "{}", "delay": "soon"}, "delay"),
        ({"input": "{}", "delay": "900d"}, "366"),
        ({"input": "{}", "priority": "601"}, "600"),
        ({"input": "{}", "key": "x" * 256}, "255"),
        ({"input": "{}", "key": "a\tb"}, "printable"),
        ({"input": "{}", "token": "x"}, "Load the page again"),
        ({"input": EVIL}, "not JSON"),
    ],
)
def test_invalid_start_is_reported_and_its_input_is_kept(
    durable_kit, operator, values, said
):
    durable.function(id="tests.f")(lambda ctx: None)
    form = {"token": str(ids.new_id()), **values}
    response = posted(operator, at("tests.f", "start"), **form)
    assert response.status_code == 422
    shown = Page(response.content.decode())
    assert said in shown.text
    assert written(shown) == values["input"]
    assert harmless(shown)
    assert not Run.objects.exists()


def test_typed_function_has_a_form_with_fields(durable_kit, operator):
    @durable.function(id="tests.f", on=durable.Event("tests/paid", schema=Amount))
    def f(ctx):
        return ctx.event.data["cents"]

    address = at("tests.f", "start")
    shown = page(operator, address)
    assert labelled(shown)
    form: dict[str, Any] = {"token": token(shown), "data-note": "ü"}
    assert operator.post(address, {**form, "data-cents": "x"}).status_code == 422
    assert operator.post(address, {**form, "data-cents": "5"}).status_code == 302
    assert Run.objects.get().data == {"cents": 5, "note": "ü"}
    (as_json,) = shown.links("as=json")
    assert written(
        page(operator, at("tests.f", "start") + as_json.partition("/start/")[2])
    )


def test_apps_own_functions_are_not_started_by_hand(durable_kit, operator):
    durable.function(id="durable_jobs.own")(lambda ctx: None)
    shown = page(operator, at("durable_jobs.own"))
    assert at("durable_jobs.own", "start") not in shown.links()
    assert "durable_jobs.own" not in page(operator, f"{LIST}?q=own").text
    form = {"token": str(ids.new_id()), "input": '{"actor": 1}'}
    response = posted(operator, at("durable_jobs.own", "start"), **form)
    assert (
        "belongs to durable_jobs" in operator.get(response["Location"]).content.decode()
    )
    assert not Run.objects.exists()


# Pausing


def test_function_is_paused_and_resumed_with_a_reason(durable_kit, operator):
    f = durable.function(id="tests.f")(lambda ctx: None)
    (address,) = page(operator, at("tests.f")).links("/pause/")
    assert labelled(page(operator, address))
    response = posted(operator, address, reason="the bank is closed")
    assert response["Location"] == at("tests.f")
    pause = Pause.objects.get()
    assert (pause.skip, pause.reason) == (False, "the bank is closed")
    f.enqueue({})
    durable_kit.run_until_idle()
    assert Run.objects.get().status == "queued"
    for shown in (page(operator, OURS), page(operator, at("tests.f"))):
        assert "paused: the bank is closed" in shown.text
    assert resume(pause) in page(operator, at("tests.f")).links()
    assert "/pause/" not in " ".join(page(operator, at("tests.f")).links())
    posted(operator, resume(pause), reason="it is open")
    durable_kit.run_until_idle()
    assert Run.objects.get().status == "completed"
    texts = [one.change_message for one in LogEntry.objects.order_by("pk")]
    assert texts == [
        "Paused, new runs stay queued: the bank is closed", "Resumed: it is open"
    ]  # fmt: skip


@pytest.mark.parametrize("typed", ["t7", '"t7"'])
def test_pause_of_a_key_with_skip_skips_its_runs(durable_kit, operator, typed):
    f = durable.function(
        id="tests.f", concurrency=durable.Concurrency(1, key="event.data.tenant")
    )(lambda ctx: None)
    form = {"key": typed, "skip": "on", "reason": "why"}
    posted(operator, at("tests.f", "pause"), **form, confirmed=typed)
    pause = Pause.objects.get()
    assert (pause.kind, pause.key, pause.skip) == ("key", '"t7"', True)
    for tenant in ("t7", "t8"):
        f.enqueue({"tenant": tenant})
    durable_kit.run_until_idle()
    statuses = {run.data["tenant"]: run.status for run in Run.objects.all()}
    assert statuses == {"t7": "skipped", "t8": "completed"}
    assert "/pause/" in " ".join(page(operator, at("tests.f")).links())


@pytest.fixture
def keyed(durable_kit):
    """Declare a function that holds a slot for each tenant, and one that queues."""
    rule = durable.Concurrency(1, key="event.data.tenant", of="runs")

    @durable.function(id="tests.keyed", concurrency=[rule, durable.Concurrency(9)])
    def function(ctx):
        ctx.step.sleep("long", "30d")

    return function


def suggestions(shown):
    """Return the keys that the form of a pause suggests."""
    return [attrs["value"] for tag, attrs in shown.tags if tag == "option"]


def test_pausing_a_key_suggests_the_keys_of_live_runs(durable_kit, operator, keyed):
    for tenant in ("acme", "acme", "7", 7, None):
        keyed.enqueue({"tenant": tenant})
    durable_kit.run_until_idle()
    keyed.enqueue({"tenant": "brand new"})
    keyed.enqueue({"tenant": "ended"}).cancel()
    shown = page(operator, at("tests.keyed", "pause"))
    assert suggestions(shown) == ['"7"', "acme", "brand new", "7", "null"]
    for key in suggestions(shown):
        posted(operator, at("tests.keyed", "pause"), key=key)
    assert Pause.objects.count() == 5


def test_pausing_a_key_suggests_a_bounded_number(monkeypatch, operator, keyed):
    monkeypatch.setattr("durable_jobs.admin.functions.pause.MAX_SUGGESTED", 2)
    for number in range(3):
        keyed.enqueue({"tenant": f"t{number}"})
    assert suggestions(page(operator, at("tests.keyed", "pause"))) == ["t0", "t1"]


def test_unknown_key_is_paused_at_the_second_submit(durable_kit, operator, keyed):
    keyed.enqueue({"tenant": "acme"})
    address = at("tests.keyed", "pause")
    response = operator.post(address, {"key": "acmee", "reason": "unpaid"})
    assert response.status_code == 422
    shown = Page(response.content.decode())
    assert "No run has this key now. Pause it anyway?" in shown.text
    assert not Pause.objects.exists()
    fields = {a.get("name"): a.get("value") for t, a in shown.tags if t == "input"}
    assert (fields["key"], fields["confirmed"]) == ("acmee", "acmee")
    other = operator.post(address, {"key": "acmes", "confirmed": "acmee"})
    assert other.status_code == 422
    posted(operator, address, key="acmee", confirmed="acmee", reason="unpaid")
    assert Pause.objects.get().key == '"acmee"'


def test_keys_that_were_not_all_read_are_not_called_unknown(
    monkeypatch, operator, keyed, durable_kit
):
    for _ in range(2):
        keyed.enqueue({"tenant": "acme"})
    durable_kit.run_until_idle()
    monkeypatch.setattr("durable_jobs.queries.live_keys.MAX_READ", 1)
    posted(operator, at("tests.keyed", "pause"), key="acmee")
    assert Pause.objects.get().key == '"acmee"'


def test_live_keys_are_shown_only_with_access_to_payloads(durable_kit, keyed):
    ann = member("bob", "view_run", "pause_function")
    keyed.enqueue({"tenant": "acme"})
    assert suggestions(page(ann, at("tests.keyed", "pause"))) == []
    posted(ann, at("tests.keyed", "pause"), key="acmee")
    assert Pause.objects.get().key == '"acmee"'


def test_stale_pause_is_reported(durable_kit, operator):
    f = durable.function(id="tests.f")(lambda ctx: None)
    f.pause(reason="first")
    response = posted(operator, at("tests.f", "pause"), reason="second")
    assert "Already paused" in page(operator, response["Location"]).text
    pause = Pause.objects.get()
    assert pause.reason == "second"
    address = resume(pause)
    f.resume()
    assert operator.get(address).status_code == 404
    response = posted(operator, address)
    assert "Already resumed" in page(operator, response["Location"]).text


def test_pause_of_a_removed_function_can_be_ended(durable_kit, operator):
    with Kit(now=durable_kit.now()):
        durable.function(id="tests.lost")(lambda ctx: None).pause()
    pause = Pause.objects.get()
    assert posted(operator, resume(pause)).status_code == 302
    assert not Pause.objects.exists()


# Permissions


def test_viewer_without_permissions_sees_no_action_and_is_refused(durable_kit):
    f = durable.function(id="tests.f")(lambda ctx: None)
    f.pause()
    viewer = member("bob", "view_run", "send_event", "pause_queue")
    pause = Pause.objects.get()
    shown = page(viewer, at("tests.f"))
    refused = [at("tests.f", "start"), at("tests.f", "pause"), resume(pause)]
    for address in refused:
        assert address not in shown.links()
        assert viewer.get(address).status_code == 403
        form = {"token": str(ids.new_id()), "input": "{}"}
        assert viewer.post(address, form).status_code == 403
    assert not Run.objects.exists()
    assert Pause.objects.exists()


def test_actions_need_to_see_runs_too(durable_kit):
    durable.function(id="tests.f")(lambda ctx: None)
    blind = member("eve", "start_run", "pause_function", "view_event")
    assert blind.get(LIST).status_code == 403
    for address in (
        LIST,
        at("tests.f"),
        at("tests.f", "start"),
        at("tests.f", "pause"),
    ):
        assert blind.get(address).status_code == 403
        assert blind.post(address, {}).status_code == 403


def test_anonymous_users_and_other_sites_are_refused(durable_kit, client):
    durable.function(id="tests.f")(lambda ctx: None)
    member("ann", "view_run", "start_run", "pause_function")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    for address in (at("tests.f", "start"), at("tests.f", "pause")):
        assert "/login/" in client.post(address, {})["Location"]
        assert strict.post(address, {"input": "{}"}).status_code == 403
    assert not Run.objects.exists()


# Invalid names


@pytest.mark.parametrize("key", ["nonsense", "_2F", "%00", "a" * 500, "%ED%A0%80"])
def test_function_that_is_nowhere_is_not_found(operator, key):
    for action in ("", "start/", "pause/"):
        assert operator.get(f"{LIST}{key}/{action}").status_code == 404


@pytest.mark.parametrize("name", ["a/b:c", "ü 1", "50%_2F", EVIL])
def test_functions_with_any_name_have_pages(durable_kit, operator, name):
    durable.function(
        id=name, name=EVIL, description=EVIL, version=EVIL[:100], queue=EVIL
    )(lambda ctx: None)
    make_runs(1, function=name, version=EVIL[:100])
    error = {"type": EVIL, "message": EVIL, "step": EVIL}
    make_runs(1, function=name, status="failed", error=error)
    posted(operator, at(name, "pause"), reason=EVIL)
    assert Pause.objects.get().name == name
    addresses = [
        OURS.replace("tests", quote(name)),
        at(name),
        at(name, "start"),
        at(name, "pause"),
    ]
    for address in [*addresses, resume(Pause.objects.get())]:
        assert harmless(page(operator, address)), address
    assert "{{ 7|add:7 }}" in page(operator, at(name)).text
    assert list_of("run") in " ".join(page(operator, at(name)).links())
