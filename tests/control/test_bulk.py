"""Actions on many runs: all of a filter, once each, even if a worker dies."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.core.exceptions import PermissionDenied

from durable_jobs import clock, durable, ids
from durable_jobs.control import bulk
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.statuses import RunStatus
from tests.control.conftest import allow

pytestmark = pytest.mark.django_db


@pytest.fixture
def kit(durable_kit):
    """Return the kit with a function whose runs wait for a signal."""

    @durable.function(id="tests.waits")
    def waits(ctx):
        ctx.step.wait_for_event("told", "tests/told", timeout="30d")

    return durable_kit


def make(count, status=RunStatus.FAILED, **values):
    """Insert runs of the function."""
    now = clock.now()
    ended = None if status in ("queued", "waiting", "paused", "running") else now
    return Run.objects.bulk_create(
        Run(
            **{
                "id": ids.new_id(),
                "function": "tests.waits",
                "status": status,
                "trigger": "durable/call",
                "data": {},
                "error": {"type": "E", "message": "m", "traceback": ""},
                "due_at": now,
                "run_order": now,
                "queued_at": now,
                "ended_at": ended,
                **values,
            }
        )
        for _ in range(count)
    )


def chosen(**conditions):
    return RunFilter.parse({"function": "tests.waits", **conditions})


def statuses():
    rows = Run.objects.filter(function="tests.waits").order_by("status")
    return {
        status: rows.filter(status=status).count()
        for status in rows.values_list("status", flat=True).distinct()
    }


def finished(kit, run):
    kit.run_until_idle()
    run.refresh_from_db()
    return run.output


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("cancel", "waiting", "cancelled"),
        ("pause", "waiting", "paused"),
        ("resume", "paused", "waiting"),
        ("redrive", "failed", "waiting"),
    ],
)
def test_action_on_a_filter_reaches_all_its_runs(kit, person, action, before, after):
    make(3, before)
    make(1, "completed")
    run = bulk.begin(person(action), action, chosen(status=before), "enough")
    assert statuses() == {before: 3, "completed": 1}, "nothing is done in the request"
    told = finished(kit, run)
    assert told == {
        "action": action,
        "done": 3,
        "refused": 0,
        "failed": 0,
        "problems": [],
    }
    assert statuses() == {after: 3, "completed": 1}


def test_selection_uses_the_ids_of_its_runs(kit, person):
    first, _other, third = make(3, "waiting")
    picked = RunFilter.parse({"id": [str(first.pk), str(third.pk)]})
    told = finished(kit, bulk.begin(person("cancel"), "cancel", picked))
    assert told["done"] == 2
    assert statuses() == {"cancelled": 2, "waiting": 1}


@pytest.mark.parametrize("size", [25, 400])
def test_action_on_a_thousand_runs_works_in_chunks(kit, person, monkeypatch, size):
    monkeypatch.setattr(bulk, "CHUNK", size)
    make(1000, "waiting")
    run = bulk.begin(person("cancel"), "cancel", chosen())
    assert finished(kit, run)["done"] == 1000
    assert statuses() == {"cancelled": 1000}
    assert run.steps.count() == -(-1001 // size)
    assert LogEntry.objects.filter(object_id=str(run.pk)).count() == 1
    assert LogEntry.objects.count() == 1001


@pytest.mark.exact("it looks at what there is while its worker is dead")
@pytest.mark.parametrize("when", ["before", "body", "after"])
def test_worker_death_between_chunks_skips_and_repeats_no_run(
    kit, person, monkeypatch, when
):
    monkeypatch.setattr(bulk, "CHUNK", 4)
    runs = make(10)
    kit.crash_at("rerun 5 to 8", when=when)
    run = bulk.begin(person("rerun"), "rerun", chosen())
    kit.run_until_idle()
    made = Run.objects.filter(parent_relation="rerun")
    assert made.count() == (8 if when == "after" else 4)
    kit.advance("2m")
    assert finished(kit, run)["done"] == 10
    again = made.values_list("parent_id", flat=True)
    assert sorted(again) == [one.pk for one in runs]


def test_runs_queued_after_the_start_are_not_changed(kit, person):
    make(2, "waiting")
    run = bulk.begin(person("cancel"), "cancel", chosen())
    make(1, "waiting")
    assert finished(kit, run)["done"] == 2
    assert statuses() == {"cancelled": 2, "waiting": 1}


def test_period_ends_where_it_did_at_the_start(kit, person):
    make(1, "waiting", queued_at=clock.now() - timedelta(minutes=55))
    run = bulk.begin(person("cancel"), "cancel", chosen(period="hour"))
    kit.advance("10m", run=False)
    assert finished(kit, run)["done"] == 1


def test_filter_without_an_index_searches_the_runs_of_the_start(
    kit, person, monkeypatch
):
    monkeypatch.setattr("durable_jobs.queries.run_filter.MAX_SEARCHED", 3)
    monkeypatch.setattr(bulk, "CHUNK", 1)
    old = make(1, "waiting", version="a")[0]
    make(3, "waiting", version="a")
    run = bulk.begin(person("cancel"), "cancel", chosen(version="a"))
    make(5, "waiting", version="a")
    assert finished(kit, run)["done"] == 3
    old.refresh_from_db()
    assert old.status == "waiting"


def test_bulk_runs_are_about_no_bulk_runs(kit, person):
    make(1, "waiting")
    first = bulk.begin(person("cancel"), "cancel", chosen())
    bobs = person("cancel", name="bob")
    for name, value in (("function", bulk.FUNCTION), ("id", str(first.pk))):
        with pytest.raises(durable.ActionNotAllowed, match="No run matches"):
            bulk.begin(bobs, "cancel", RunFilter.parse({name: value}))
    second = bulk.begin(bobs, "cancel", RunFilter.parse({"period": "hour"}))
    assert finished(kit, first)["done"] == 1
    assert finished(kit, second)["refused"] == 1


def test_runs_in_other_statuses_are_counted_and_reported(kit, person):
    make(2)
    done = make(1, "completed")[0]
    told = finished(kit, bulk.begin(person("redrive"), "redrive", chosen()))
    assert (told["done"], told["refused"], told["failed"]) == (2, 1, 0)
    problem = {"run": str(done.pk), "what": "refused"}
    assert told["problems"] == [{**problem, "message": "The run is completed."}]


def test_failing_runs_do_not_stop_the_others(kit, person):
    gone = make(1, function="tests.gone")[0]
    make(2)
    both = RunFilter.parse({"status": "failed"})
    told = finished(kit, bulk.begin(person("rerun"), "rerun", both))
    assert (told["done"], told["failed"]) == (2, 1)
    assert told["problems"][0]["run"] == str(gone.pk)
    assert "UnknownFunction" in told["problems"][0]["message"]


def test_problems_are_listed_up_to_a_maximum(kit, person, monkeypatch):
    monkeypatch.setattr(bulk, "MOST_PROBLEMS", 7)
    monkeypatch.setattr(bulk, "CHUNK", 5)
    make(12, "completed")
    told = finished(kit, bulk.begin(person("cancel"), "cancel", chosen()))
    assert told["refused"] == 12
    assert len(told["problems"]) == 7


def test_action_needs_the_permission_for_each_run(kit, person):
    make(1, "waiting")
    with pytest.raises(PermissionDenied):
        bulk.begin(person("pause"), "cancel", chosen())
    assert not Run.objects.filter(function=bulk.FUNCTION).exists()


@pytest.mark.exact("it counts what is done before the permission is lost")
def test_action_stops_when_the_permission_is_lost(kit, person, monkeypatch):
    monkeypatch.setattr(bulk, "CHUNK", 2)
    make(6, "waiting")
    actor = person("cancel")
    run = bulk.begin(actor, "cancel", chosen())
    kit.crash_at("cancel 3 to 4", when="before")
    kit.run_until_idle()
    allow(actor.user)
    kit.advance("2m")
    run.refresh_from_db()
    assert run.status == "failed"
    assert "permission durable_jobs.cancel_run" in run.error["message"]
    assert statuses() == {"cancelled": 2, "waiting": 4}
    allow(actor.user, "cancel")
    run.redrive()
    assert finished(kit, run)["done"] == 6
    assert statuses() == {"cancelled": 6}


def test_action_stops_when_its_user_is_deleted_or_inactive(kit, person):
    make(1, "waiting")
    left, banned = person("cancel"), person("cancel", name="bob")
    runs = [bulk.begin(one, "cancel", chosen()) for one in (left, banned)]
    left.user.delete()
    banned.user.is_active = False
    banned.user.save()
    kit.run_until_idle()
    for run in runs:
        run.refresh_from_db()
        assert run.status == "failed"
    assert statuses() == {"waiting": 1}


@pytest.mark.exact("it looks at what there is while its worker is dead")
def test_action_can_be_cancelled_in_the_middle(kit, person, monkeypatch):
    monkeypatch.setattr(bulk, "CHUNK", 2)
    make(6, "waiting")
    run = bulk.begin(person("cancel"), "cancel", chosen())
    kit.crash_at("cancel 3 to 4", when="after")
    kit.run_until_idle()
    assert run.cancel(reason="a mistake")
    kit.advance("5m")
    assert statuses() == {"cancelled": 4, "waiting": 2}


def test_action_cancelled_during_a_chunk_stops(kit, person, monkeypatch):
    monkeypatch.setattr(bulk, "CHUNK", 2)
    make(6, "waiting")
    run = bulk.begin(person("cancel"), "cancel", chosen())
    chunk = bulk._chunk

    def cancelled_meanwhile(asked, itself, *args):
        found = chunk(asked, itself, *args)
        run.cancel(reason="a mistake")
        return found

    monkeypatch.setattr(bulk, "_chunk", cancelled_meanwhile)
    kit.run_until_idle()
    assert statuses() == {"cancelled": 2, "waiting": 4}
    run.refresh_from_db()
    assert run.status == "cancelled"


def test_selections_of_no_and_of_too_many_runs_are_refused_with_the_number(
    kit, person, monkeypatch
):
    actor = person("cancel")
    with pytest.raises(durable.ActionNotAllowed, match="No run matches"):
        bulk.begin(actor, "cancel", chosen())
    monkeypatch.setattr(bulk, "MOST", 3)
    make(4, "waiting")
    with pytest.raises(durable.LimitExceeded, match="More than 3 runs"):
        bulk.begin(actor, "cancel", chosen())
    assert bulk.counted(chosen()) == 4


def test_several_statuses_are_counted_separately_up_to_the_cap(kit, monkeypatch):
    for status, count in (("waiting", 2), ("failed", 3), ("cancelled", 4)):
        make(count, status)
    several = chosen(status=["waiting", "failed", "cancelled"])
    assert bulk.counted(several) == 9
    assert [str(part) for part in several.split_by_status()] == [
        f"function tests.waits; status {status}"
        for status in ("cancelled", "failed", "waiting")
    ]
    # Without an index, only the newest of all runs are searched.
    assert bulk.counted(chosen(status=["waiting", "failed"], trigger="no")) == 0
    looked = chosen(status=["waiting", "failed"], trigger="durable/call")
    assert looked.split_by_status() == [looked]
    assert bulk.counted(looked) == 5
    for most in (3, 4, 8):
        monkeypatch.setattr(bulk, "MOST", most)
        assert bulk.counted(several) == most + 1


@pytest.mark.parametrize("action", ["edit", "answer", "delete", ""])
def test_action_that_needs_values_is_refused_for_many_runs(kit, person, action):
    with pytest.raises(durable.ConfigurationError, match="Expected one of cancel"):
        bulk.begin(person("cancel"), action, chosen())


def test_key_starts_one_action(kit, person):
    actor = person("cancel")
    make(2, "waiting")
    first = bulk.begin(actor, "cancel", chosen(), key="form 1")
    make(1, "waiting")
    assert bulk.begin(actor, "cancel", chosen(), key="form 1") == first
    assert bulk.begin(actor, "cancel", chosen(), key="form 2") != first
    assert LogEntry.objects.count() == 2


def test_concurrent_starts_with_a_key_start_one_action(kit, person, monkeypatch):
    actor = person("cancel")
    make(2, "waiting")
    first = bulk.begin(actor, "cancel", chosen(), "one", key="form 1")
    monkeypatch.setattr(
        bulk, "_started", lambda key: None
    )  # neither has seen the other
    assert bulk.begin(actor, "cancel", chosen(), "two", key="form 1") == first
    assert LogEntry.objects.count() == 1


def test_action_is_in_the_log(kit, person):
    make(2, "waiting")
    actor = person("cancel")
    run = bulk.begin(actor, "cancel", chosen(status="waiting"), "enough")
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id) == (actor.user, str(run.pk))
    assert "2 runs to be cancelled" in entry.change_message
    assert "status waiting" in entry.change_message
    assert entry.change_message.endswith(": enough")


def test_machine_whose_clock_is_behind_waits(kit, person, monkeypatch):
    make(1)
    run = bulk.begin(person("rerun"), "rerun", chosen())
    with monkeypatch.context() as behind:
        behind.setattr(ids, "new_id", lambda: uuid.UUID(int=run.pk.int - 1))
        kit.run_until_idle()
    assert Run.objects.filter(parent_relation="rerun").count() == 0
    kit.advance("1m")
    assert finished(kit, run)["done"] == 1


def test_bulk_function_is_hidden_from_the_project():
    assert bulk.FUNCTION in registry.ids()
    assert bulk.FUNCTION not in {function.id for function in registry}
    assert len(registry) == len(registry.ids()) - 1
