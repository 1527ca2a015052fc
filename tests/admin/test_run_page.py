"""The page of a run: its timeline, its waits and its related objects."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext

from durable_jobs import clock, durable, ids
from durable_jobs.admin.payloads import MAX_PAYLOAD_LENGTH
from durable_jobs.admin.related import MOST as MOST_RUNS
from durable_jobs.admin.runs.timeline import MAX_NOTES
from durable_jobs.models import Event, FailedAttempt, Run, Step, Subject, Wait
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.admin.conftest import list_of, make_events, make_runs, make_steps, page_of

pytestmark = pytest.mark.django_db


def start(kit: Kit, body, data=None, **options):
    run = durable.function(id=f"tests.{body.__name__}", **options)(body).enqueue(data)
    kit.run_until_idle()
    return run


def test_timeline_shows_the_steps_nested_and_in_order(durable_kit, get):
    def nested(ctx):
        ctx.step.run("first", lambda: 1)
        ctx.step.map("each", lambda n: ctx.step.run("inner", lambda: n), [1, 2])
        with ctx.step.group("last"):
            ctx.step.run("innermost", lambda: 3)

    page = get(page_of(start(durable_kit, nested)))
    steps = Step.objects.order_by("position")
    assert page.rows("step") == [page_of(step) for step in steps]
    depths = [int(one[-1]) for one in page.classes("durable-depth-")]
    assert depths == [0, 1, 1, 2, 3, 2, 3, 1, 2]
    assert f"{list_of('step')}?run=" in "".join(page.links())


def test_bars_are_where_things_happened(durable_kit, get):
    def timed(ctx):
        ctx.step.sleep("a quarter", "15s")
        ctx.step.sleep("the rest", "45s")

    run = start(durable_kit, timed)
    durable_kit.advance("1m")
    page = get(page_of(run))
    bars = [a for tag, a in page.tags if tag == "rect" and a.get("rx") == "2"]
    assert [(bar["x"], bar["width"]) for bar in bars] == [
        ("0.000%", "100.000%"),
        ("0.000%", "25.000%"),
        ("25.000%", "75.000%"),
    ]
    assert page.classes("durable-bar idle")
    for mark in ("10 s", "20 s", "50 s", "15 s", "45 s", "1 m 00 s"):
        assert mark in page.text


def test_group_is_as_long_as_its_contents(durable_kit, get):
    def grouped(ctx):
        with ctx.step.group("both"):
            ctx.step.sleep("one", "10s")
            ctx.step.sleep("two", "20s")

    run = start(durable_kit, grouped)
    durable_kit.advance("30s")
    assert "both group Completed 30 s" in get(page_of(run)).text


def test_failed_attempts_and_the_next_one_are_shown(durable_kit, get):
    def broken():
        raise ConnectionError("no route\nto host")

    def retried(ctx):
        ctx.step.run("call", broken)

    options = {"retries": 2, "backoff": durable.Backoff.fixed("10m")}
    run = start(durable_kit, retried, **options)
    durable_kit.advance("10m")
    page = get(page_of(run))
    assert "call run Scheduled 2 retries" in page.text
    assert "attempt 1 failed · ConnectionError: no route to host" in page.text
    assert "attempt 2 failed · ConnectionError" in page.text
    assert "next attempt" in page.text
    assert "in 10 m 00 s" in page.text
    assert len(page.classes("durable-bar work bad")) == 2
    durable_kit.advance("10m")
    page = get(page_of(run))
    assert "Failed" in page.text
    assert "call run Failed 2 retries" in page.text
    assert "Traceback" in page.text


def test_failed_attempt_of_the_function_itself_is_shown(durable_kit, get):
    def careless(ctx):
        raise LookupError("nothing there")

    options = {"backoff": durable.Backoff.fixed("20m")}
    page = get(page_of(start(durable_kit, careless, **options)))
    assert "tests.careless Queued 1 retry" in page.text
    assert "in 20 m 00 s" in page.text
    assert "attempt 1 failed · LookupError: nothing there" in page.text


def test_page_shows_what_the_run_waits_for(durable_kit, get):
    order = Order.objects.create(tenant=Tenant.objects.create(name="a"), total=1)

    def child(ctx):
        ctx.step.sleep("long", "3d")

    inner = durable.function(id="tests.child")(child)

    def waiting(ctx):
        ctx.step.parallel(
            "all",
            [
                lambda: ctx.step.sleep("nap", "2h"),
                lambda: ctx.step.wait_for_event("e", "shop/paid", timeout="1d"),
                lambda: ctx.step.wait_for_signal("s", "go ahead"),
                lambda: ctx.step.wait_for_model("m", order, when=Q(status="paid")),
                lambda: ctx.step.wait_for_callback("c"),
                lambda: ctx.step.approve("a", "Pay", "shop.change_order"),
                lambda: ctx.step.invoke("i", inner),
                lambda: ctx.step.wait_for_any(
                    "any",
                    {"x": durable.EventWait("shop/x"), "y": durable.SignalWait("y")},
                ),
            ],
        )

    run = start(
        durable_kit,
        waiting,
        cancel_on=durable.CancelOn("shop/stopped"),
        timeouts=durable.Timeouts(finish="9d"),
    )
    page = get(page_of(run))
    started = Run.objects.get(function="tests.child")
    for text in (
        "sleeps until",
        "in 2 h 00 m",
        "waits for the event shop/paid",
        "times out",
        "in 1 d 00 h",
        "waits for the signal go ahead",
        f"waits for shop.order {order.pk}",
        "waits for a callback",
        "waits for approval by shop.change_order",
        f"waits for the run {str(started.pk)[-8:]}",
        "x: waits for the event shop/x",
        "y: waits for the signal y",
        "cancelled if this event arrives: shop/stopped",
        "must end by",
        "in 9 d 00 h",
    ):
        assert text in page.text, text
    assert page_of(started) in page.links()


def test_page_links_to_the_origin_and_the_subjects_of_the_run(durable_kit, get):
    order = Order.objects.create(tenant=Tenant.objects.create(name="a"), total=1)

    def child(ctx):
        return None

    inner = durable.function(id="tests.child")(child)

    @durable.function(id="tests.parent", on=durable.Event("tests/go"))
    def parent(ctx):
        ctx.step.invoke("call", inner, {"order": ctx.event.data["order"]})

    event = durable_kit.send("tests/go", {"order": order})
    durable_kit.run_until_idle()
    above, below = Run.objects.order_by("queued_at", "pk")
    page = get(page_of(above))
    assert page_of(Event.objects.get(pk=event)) in page.links()
    assert page_of(order) in page.links()
    assert page_of(below) in page.links()
    page = get(page_of(below))
    assert page_of(above) in page.links()
    assert "tests.parent" in page.text
    assert "· invoke" in page.text


def test_deleted_objects_are_named_without_a_link(get):
    gone = uuid.uuid4()
    run = make_runs(1, event_id="an event that is gone", parent_id=gone)[0]
    Subject.objects.create(run=run, model="removed.model", object_pk="3")
    page = get(page_of(run))
    for text in ("that is gone"[-8:], str(gone)[-8:], "removed.model 3"):
        assert text in page.text
    assert not page.links("is%20gone")
    assert not page.links(str(gone))


def test_payloads_are_shown_without_loading_their_references(durable_kit, get):
    order = Order.objects.create(tenant=Tenant.objects.create(name="a"), total=1)

    def echo(ctx):
        return {"order": order, "at": durable_kit.now(), "ü": [1, "zwei"]}

    run = start(durable_kit, echo, {"order": order})
    key = order.pk
    order.delete()
    page = get(page_of(run))
    assert f'"order": shop.order {key} deleted' in page.text
    assert '"ü": [1, "zwei"]' in page.text
    assert "datetime" in page.text


def test_large_payload_is_shown_in_part(admin_client, get):
    run = make_runs(
        1, data={"text": "x" * 3_000_000}, output=["y" * (MAX_PAYLOAD_LENGTH - 100)]
    )[0]
    page = get(page_of(run))
    assert "The first 100,000 characters." in page.text
    assert len(page.source) < 3 * MAX_PAYLOAD_LENGTH


def test_unreadable_payload_is_shown_as_stored(get):
    run = make_runs(1)[0]
    column = "output"
    value = '{"n": 1, "$durable": "unheard of"}'
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE durable_jobs_run SET {column} = %s WHERE function = %s",  # noqa: S608  # a constant
            [value, run.function],
        )
    assert "unheard of" in get(page_of(run)).text


def test_page_asks_as_often_for_many_rows_as_for_few(viewer):
    client = viewer("run", "step", "event")
    event = make_events(1)[0]

    def queries(count):
        parent = make_runs(1)[0]
        run = make_runs(1, event_id=event.pk, parent_id=parent.pk)[0]
        steps = make_steps(run, count)
        now = clock.now()
        for step in steps:
            FailedAttempt.objects.create(
                run=run,
                step=step.key,
                number=0,
                error={"type": "E", "message": "m", "traceback": "t" * 5000},
                ended_at=now,
            )
            Wait.objects.create(
                run=run, step=step.key, kind="event", name="x", created_at=now
            )
            Subject.objects.create(run=run, model="shop.order", object_pk=step.key)
            make_runs(1, parent_id=run.pk, parent_step=step.key)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(page_of(run)).status_code == 200
        return [query["sql"] for query in captured]

    few = queries(1)
    assert len(queries(30)) == len(few)
    # The session, the viewer and their permissions; the run, its steps, attempts and
    # waits; its event, parent, children and subjects. Steps are read twice: an outline
    # of all, and those that are drawn.
    assert len(few) == 13
    assert not any("COUNT(" in sql for sql in few)


def test_huge_run_is_shown_in_part(get, admin_client):
    run = make_runs(1)[0]
    make_steps(run, 500)
    make_runs(MOST_RUNS + 5, parent_id=run.pk)
    FailedAttempt.objects.bulk_create(
        FailedAttempt(run=run, number=n, error={"type": f"E{n}"}, ended_at=clock.now())
        for n in range(MAX_NOTES + 20)
    )
    page = get(page_of(run))
    assert len(page.rows("step")) == 20
    assert "step 10 … step 489: 480 steps, median 10 ms" in page.text
    assert len(page.rows("run")) == MOST_RUNS
    assert f"{list_of('run')}?parent={run.pk}" in page.links()
    assert "E219" in page.text
    assert "E0:" not in page.text
    assert len(page.source) < 1_000_000


def test_invalid_times_draw_bars_and_break_nothing(get):
    now = clock.now()
    run = make_runs(
        1, status="running", started_at=now + timedelta(hours=1), ended_at=None
    )[0]
    make_steps(
        run, 1, started_at=now - timedelta(days=900), ended_at=None, status="running"
    )
    assert get(page_of(run)).classes("durable-bar")
    same = make_runs(1, started_at=now, ended_at=now)[0]
    assert get(page_of(same)).classes("durable-bar")
    never = make_runs(1, status="skipped", reason="too many", started_at=None)[0]
    page = get(page_of(never))
    assert "too many" in page.text
    assert not page.classes("durable-bar")


def test_row_of_a_retired_kind_is_shown(get):
    run = make_runs(1)[0]
    key = ids.step_key("old")
    make_steps(run, 1, kind="from_the_future", key=key, detail={"a": None})
    assert "from the future" in get(page_of(run)).text
