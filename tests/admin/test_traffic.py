"""The pages of queues and limits, with pausing and resuming."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs import clock, durable
from durable_jobs.control import limits as limit_control
from durable_jobs.control import pauses as pause_control
from durable_jobs.models import Backlog, Limit, Pause, Run, Slot, Worker
from durable_jobs.queries import limits
from durable_jobs.queries import queues as queue_queries
from durable_jobs.testing import Kit
from tests.admin.conftest import make_runs, page_of
from tests.admin.people import EVIL, harmless, labelled, member, page, posted

pytestmark = pytest.mark.django_db

PAGE = reverse("admin:durable_jobs_queues")


def pausing(queue: str) -> str:
    return reverse("admin:durable_jobs_queue_pause", args=[quote(queue)])


def resume(pause: Pause) -> str:
    return reverse("admin:durable_jobs_resume", args=[pause.pk])


@pytest.fixture
def operator(db) -> Client:
    return member(
        "ann", "view_run", "view_payload", "view_limit", "pause_queue", "pause_function"
    )


def queue_of(name: str) -> queue_queries.QueueUsage:
    found = queue_queries.queues(queue_queries.pauses(), queue_queries.executing())
    return next(queue for queue in found if queue.name == name)


@pytest.fixture
def napper(durable_kit):
    """Let one run of a tenant hold its only slot, and others wait in the backlog."""

    @durable.function(
        id="tests.napper",
        concurrency=durable.Concurrency(1, key="event.data.tenant", of="runs"),
    )
    def napper(ctx):
        ctx.step.sleep("nap", "1h")

    for _ in range(3):
        napper.enqueue({"tenant": "t7"})
    durable_kit.run_until_idle()
    return napper


# Queues


def test_queue_shows_its_ready_runs_and_their_age(durable_kit, operator):
    durable.function(id="tests.f", queue="tests-slow")(lambda ctx: None).enqueue({})
    later = durable.function(id="tests.g", queue="tests-slow")(lambda ctx: None)
    later.using(run_after="1h").enqueue({})
    durable_kit.advance("90s", run=False)
    found = queue_of("tests-slow")
    assert found.ready == 1
    assert found.oldest == durable_kit.now() - timedelta(seconds=90)
    assert "tests-slow 1 1 m 30 s 0 0 0 open" in page(operator, PAGE).text


def test_queue_that_no_code_names_is_seen_too(durable_kit, operator):
    for queue in ("aaa", "zzz"):
        make_runs(1, queue=queue, status="queued", ended_at=None, started_at=None)
    assert queue_of("zzz").ready == 1
    assert queue_of("aaa").ready == 1


def test_running_runs_are_counted_by_queue_and_worker(operator):
    until = clock.now() + timedelta(minutes=1)
    for name in ("host-1:7", "host-1:7", "host-2:9"):
        run = make_runs(1, queue="tests-q", status="running", ended_at=None)[0]
        Run.objects.filter(pk=run.pk).update(
            lease_token=run.pk, lease_until=until, worker=name
        )
    now = clock.now()
    for name, kind, queues, ago in (
        ("tick", "beat", [], 0), ("host-1:7", "worker", ["tests-q", "other"], 5),
        ("host-3:1", "worker", ["tests-q"], 600),
    ):  # fmt: skip
        Worker.objects.create(
            name=name, kind=kind, queues=queues, started_at=now,
            seen_at=now - timedelta(seconds=ago),
        )  # fmt: skip
    assert queue_of("tests-q").executing == 3
    text = page(operator, PAGE).text
    for part in (
        "tests-q 0 3 0 1 open", "other 0 0 0 1 open",
        "host-1:7 worker tests-q, other 2", "host-2:9 worker tests-q 1 No heartbeat",
        "tick beat",
    ):  # fmt: skip
        assert part in text, part
    assert text.count("Offline") == 1


def test_counts_are_capped_as_the_page_says(durable_kit, operator, monkeypatch):
    monkeypatch.setattr(queue_queries, "MAX_COUNT", 3)
    monkeypatch.setattr(limits, "MAX_COUNT", 3)
    monkeypatch.setattr("durable_jobs.admin.queues.views.MAX_COUNT", 3)
    make_runs(9, queue="tests-q", status="queued", ended_at=None, started_at=None)
    assert queue_of("tests-q").ready == 4
    assert "tests-q 3+" in page(operator, PAGE).text


def test_queue_is_paused_and_resumed_with_a_reason(durable_kit, operator):
    f = durable.function(id="tests.f", queue="tests-q")(lambda ctx: None)
    assert pausing("tests-q") in page(operator, PAGE).links()
    assert labelled(page(operator, pausing("tests-q")))
    posted(operator, pausing("tests-q"), reason="the bank is closed")
    f.enqueue({})
    durable_kit.run_until_idle()
    assert Run.objects.get().status == "queued"
    shown = page(operator, PAGE)
    assert "paused the bank is closed" in shown.text
    pause = Pause.objects.get()
    assert resume(pause) in shown.links()
    assert pausing("tests-q") not in shown.links()
    posted(operator, resume(pause), reason="it is open")
    durable_kit.run_until_idle()
    assert Run.objects.get().status == "completed"
    texts = [one.change_message for one in LogEntry.objects.order_by("pk")]
    assert texts == ["Paused: the bank is closed", "Resumed: it is open"]


def test_queue_paused_twice_has_the_new_reason(durable_kit, operator):
    durable.pause_queue("default", "first")
    response = posted(operator, pausing("default"), reason="second")
    assert "Already paused" in page(operator, response["Location"]).text
    assert Pause.objects.get().reason == "second"


def test_race_for_a_resume_is_a_message(durable_kit, operator, monkeypatch):
    durable.pause_queue("default", "why")
    pause = Pause.objects.get()
    monkeypatch.setattr(pause_control, "resume_paused", lambda pause: False)
    response = posted(operator, resume(pause))
    assert response.status_code == 302
    assert "was already resumed" in page(operator, response["Location"]).text
    assert not LogEntry.objects.exists()


def test_pauses_are_all_listed(durable_kit, operator):
    f = durable.function(
        id="tests.f", concurrency=durable.Concurrency(1, key="event.data.t")
    )(lambda ctx: None)
    f.pause(reason="whole", skip=True)
    f.pause(reason="one", key="t7")
    durable.pause_queue("default", "queue")
    shown = page(operator, PAGE)
    for part in (
        "tests.f function skipped whole", 'tests.f key "t7" queued one',
        "default queue queued queue",
    ):  # fmt: skip
        assert part in shown.text
    for pause in Pause.objects.all():
        assert resume(pause) in shown.links()


# Limits


def test_limit_shows_its_runs_and_its_backlog(napper, operator):
    holder = Run.objects.get(status="waiting")
    first = Run.objects.filter(status="queued").order_by("run_order").first()
    shown = page(operator, PAGE)
    text = 'concurrency tests.napper "t7" 1 live at a time 1'
    assert text in shown.text
    assert shown.links("/run/").index(page_of(holder)) < shown.links("/run/").index(
        page_of(first)
    )
    assert "2 tests.napper" in shown.text
    assert page_of(Limit.objects.get(function="tests.napper")) in shown.links()


def test_operators_limit_is_shown_beside_the_declared_one(napper, operator):
    limit_control.set_limit(Limit.objects.get(function="tests.napper"), 0)
    text = page(operator, PAGE).text
    assert "0 live at a time (declared: 1)" in text


def test_dynamic_limit_shows_its_error(durable_kit, operator):
    def broken_limit(key):
        raise OSError("no such tenant")

    @durable.function(
        id="tests.f", concurrency=durable.Concurrency(broken_limit, key="event.data.t")
    )
    def f(ctx):
        return None

    f.enqueue({"t": 1})
    durable_kit.run_until_idle()
    text = page(operator, PAGE).text
    assert "broken_limit at a time" in text
    assert "no such tenant" in text


def test_kinds_of_limits_are_described_from_their_rows(durable_kit, operator):
    @durable.function(
        id="tests.f",
        concurrency=[
            durable.Concurrency(5),
            durable.Concurrency(7, key="event.data.t", scope="account", of="runs"),
        ],
        throttle=durable.Throttle(60, per="1m"),
        rate_limit=durable.RateLimit(9, per="1h", key="event.data.t"),
        singleton=durable.Singleton(key="event.data.n"),
    )
    def f(ctx):
        return None

    @durable.function(id="tests.o", ordering="event.data.t")
    def o(ctx):
        return None

    for n in range(3):
        f.enqueue({"t": "x", "n": n})
        o.enqueue({"t": "x"})
    durable_kit.run_until_idle()
    text = page(operator, PAGE).text
    for part in (
        "concurrency tests.f 5 at a time", 'the account "x" 7 live at a time',
        "throttle tests.f 60 starts in 1 m 00 s", "used up until",
        'rate limit tests.f "x" 9 starts in 1 h 00 m', "singleton tests.f 0",
        'ordering tests.o "x" one live run',
    ):  # fmt: skip
        assert part in text, part
    assert "Not deployed" not in text


def test_removed_limit_is_marked(durable_kit, operator):
    with Kit(now=durable_kit.now()) as kit:
        durable.function(id="tests.lost", concurrency=1)(lambda ctx: None).enqueue({})
        kit.run_until_idle()
    assert "Not deployed" in page(operator, PAGE).text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("function=tests.napper", True),
        ("key=t7", True),
        ("key=%22t7%22", True),
        ("function=tests.napper&key=t7", True),
        ("function=tests.napper&key=t8", False),
        ("function=nobody", False),
        ("function=nobody&key=t7", False),
        ("key=7", False),
    ],
)
def test_limits_are_found_by_function_and_key(napper, operator, query, found):
    assert ("1 live at a time" in page(operator, f"{PAGE}?{query}").text) == found


def test_old_limit_is_found_by_function_and_key(napper, operator, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SEARCHED", 1)
    now = clock.now()
    Limit.objects.create(
        name="newer", control="throttle", used_at=now + timedelta(days=1)
    )
    text = page(operator, f"{PAGE}?function=tests.napper").text
    assert "1 live at a time" not in text
    assert "the 1 limits used last" in text
    text = page(operator, f"{PAGE}?function=tests.napper&key=t7").text
    assert "1 live at a time" in text
    assert "Looked for among" not in text


def test_limits_go_on_where_a_page_ends(operator):
    now = clock.now()
    Limit.objects.bulk_create(
        Limit(name=f"g{n}", control="throttle", key=f"k{n:03}", used_at=now)
        for n in range(2 * limits.PAGE + 1)
    )
    seen, address = [], PAGE
    while True:
        shown = page(operator, address)
        seen += shown.rows("limit")
        following = shown.links("before=")
        if not following:
            break
        address = PAGE + following[0]
    assert len(seen) == len(set(seen)) == 2 * limits.PAGE + 1


@pytest.mark.parametrize(
    "query",
    ["before=x", "before=2025-01-01 1", "before=%00", "function=%00", "key=%00",
     "before=2025-01-01T00:00:00%2B00:00 99999999999999999999"],
)  # fmt: skip
def test_invalid_filter_redirects_to_the_unfiltered_page(operator, query):
    response = operator.get(f"{PAGE}?{query}")
    assert (response.status_code, response["Location"]) == (302, PAGE)


def test_page_asks_as_often_for_many_rows_as_for_few(durable_kit, operator):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(operator, PAGE)
        return len(captured)

    def make(first: int, last: int) -> None:
        now = clock.now()
        for n in range(first, last):
            durable.function(id=f"tests.f{n}", queue=f"tests-{n}")(lambda ctx: None)
            limit_row = Limit.objects.create(
                name=f"g{n}", control="throttle", used_at=now
            )
            runs = make_runs(
                12, queue=f"tests-{n}", status="queued", ended_at=None, started_at=None
            )
            for k in range(7):
                backlog = Backlog.objects.create(
                    name=f"{n} {k}", function=f"tests.f{n}", queue=f"tests-{n}",
                    keys={}, for_new_runs=True, eligible_at=now, blocked_on=limit_row,
                )  # fmt: skip
                Run.objects.filter(pk=runs[k].pk).update(backlog=backlog.pk)
            Slot.objects.bulk_create(
                Slot(limit=limit_row, run=run, since=now) for run in runs
            )
            Pause.objects.create(kind="key", name=f"tests.f{n}", key="k", paused_at=now)

    make(0, 1)
    few = queries()
    make(1, 15)
    assert queries() == few
    # The session, the viewer and their permissions; limits, slots counted and listed
    # and their runs, backlogs and their runs; pauses, running work, queues found and
    # counted, backlogs by queue, workers.
    assert few == 18


# Permissions


def test_viewer_without_permissions_sees_no_action_and_is_refused(durable_kit):
    durable.pause_queue("default", "why")
    viewer = member("bob", "view_run", "pause_function", "start_run")
    pause = Pause.objects.get()
    shown = page(viewer, PAGE)
    for address in (pausing("default"), resume(pause)):
        assert address not in shown.links()
        assert viewer.get(address).status_code == 403
        assert viewer.post(address, {}).status_code == 403
    assert Pause.objects.exists()
    assert "/gate/" not in " ".join(shown.links())


def test_actions_need_to_see_runs_too(durable_kit):
    durable.pause_queue("default", "why")
    blind = member("eve", "pause_queue", "view_event")
    for address in (PAGE, pausing("default"), resume(Pause.objects.get())):
        assert blind.get(address).status_code == 403
        assert blind.post(address, {}).status_code == 403
    assert Pause.objects.exists()


def test_anonymous_users_and_other_sites_are_refused(durable_kit, client):
    member("ann", "view_run", "pause_queue")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    assert "/login/" in client.post(pausing("default"), {})["Location"]
    assert strict.post(pausing("default"), {}).status_code == 403
    assert not Pause.objects.exists()


def test_missing_row_is_not_found(operator):
    for key in ("nonsense", "_2F", "%00", "a" * 500):
        assert operator.get(f"{PAGE}{key}/pause/").status_code == 404
        assert operator.post(f"{PAGE}{key}/pause/", {}).status_code == 404
    for pk in ("0", "9" * 40):
        resume = f"{PAGE.removesuffix('queues/')}pauses/{pk}/resume/"
        assert operator.get(resume).status_code == 404


def test_markup_in_names_keys_and_reasons_is_text(durable_kit, operator):
    @durable.function(
        id=EVIL,
        queue=EVIL,
        concurrency=durable.Concurrency(1, key="event.data.t", of="runs"),
    )
    def f(ctx):
        ctx.step.sleep("s", "1h")

    for _ in range(2):
        f.enqueue({"t": EVIL})
    durable_kit.run_until_idle()
    Limit.objects.update(error=EVIL)
    f.pause(reason=EVIL)
    posted(operator, pausing(EVIL), reason=EVIL)
    Run.objects.update(worker=EVIL)
    shown = page(operator, PAGE)
    assert harmless(shown)
    assert "{{ 7|add:7 }}" in shown.text
    for pause in Pause.objects.all():
        assert harmless(page(operator, resume(pause)))
    assert harmless(page(operator, f"{PAGE}?function={EVIL}&key={EVIL}"))
