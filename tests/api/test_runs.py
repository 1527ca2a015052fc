"""Runs over HTTP: starting, listing, reading, awaiting and acting."""

from __future__ import annotations

import logging
import threading
import uuid
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User

from durable_jobs import durable, notifier
from durable_jobs.api import long_poll
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from tests.admin.conftest import make_runs, make_steps
from tests.api.conftest import person_of, problem, program_of, user_with

pytestmark = pytest.mark.django_db

logger = logging.getLogger("project.tests")

NOBODY = "00000000-0000-7000-8000-000000000000"


# Functions and starts


def test_functions_list_their_triggers(kit, api, sleeper):
    @durable.function(
        id="tests.often",
        on=[durable.Cron("0 9 * * *", tz="Europe/Paris"),
            durable.Event("tests/x", if_="event.data.n > 1"),
            durable.ModelChange("shop.Order", created=True)],
    )  # fmt: skip
    def often(ctx: durable.Context) -> None:
        """Do it often."""

    found = api.get("functions").json()["functions"]
    ids = [one["id"] for one in found]
    assert ids == sorted(ids)
    (shown,) = [one for one in found if one["id"] == "tests.often"]
    assert shown["description"] == "Do it often."
    assert shown["triggers"] == [
        {"kind": "cron", "cron": "0 9 * * *", "tz": "Europe/Paris"},
        {"kind": "event", "name": "tests/x", "if": "event.data.n > 1"},
        {"kind": "model", "model": "shop.Order", "changes": ["created"]},
    ]
    assert not shown["paused"]
    often.pause()
    assert api.get("functions/tests.often").json() == {**shown, "paused": True}
    problem(api.get("functions/tests.none"), 404, "not-found")


def test_run_is_started_with_data_a_key_and_a_delay(kit, api, sleeper):
    body = {"data": {"bed": 7}, "key": "k", "run_after": "1h", "priority": 60}
    first = api.post(f"functions/{sleeper.id}/runs", body)
    assert first.status_code == 201
    run = Run.objects.get(pk=first.json()["id"])
    assert run.data == {"bed": 7}
    assert run.due_at == kit.now() + timedelta(hours=1)
    again = api.post(f"functions/{sleeper.id}/runs", body)
    assert again.status_code == 200
    assert again.json()["id"] == first.json()["id"]
    other = api.post(f"functions/{sleeper.id}/runs", {"data": {}, "key": "k"})
    problem(other, 409, "duplicate-key")
    entry = LogEntry.objects.get(object_id=str(run.pk))
    assert entry.change_message.startswith("Run started. (by API key tests")
    at = {"run_after": "2026-03-05T00:00:00Z"}
    later = api.post(f"functions/{sleeper.id}/runs", at).json()
    assert later["due_at"] == "2026-03-05T00:00:00Z"


@pytest.mark.parametrize(
    "body",
    [
        {"data": []}, {"key": ""}, {"key": "\ud800"}, {"run_after": "soon"},
        {"run_after": -1}, {"run_after": 1e300}, {"run_after": "2026-03-05T00:00:00"},
        {"run_after": "9999-12-31T23:00:00-11:00"}, {"run_after": "2026-99-99T00:00Z"},
        {"priority": 601}, {"priority": "high"}, {"priority": 1.5}, {"later": True},
        [], 7,
    ],
)  # fmt: skip
def test_start_that_cannot_be_is_refused(kit, api, sleeper, body):
    response = api.post(f"functions/{sleeper.id}/runs", body)
    problem(response, 422, response.json()["code"])
    assert not Run.objects.exists()


def test_unknown_function_cannot_be_started(kit, api):
    problem(api.post("functions/no.such/runs", {}), 404, "unknown-function")


# Lists


def test_pages_are_the_newest_first_and_stay_while_runs_arrive(kit, api):
    known = [str(run.pk) for run in make_runs(7)][::-1]
    first = api.get("runs", {"limit": 3}).json()
    make_runs(5)
    second = api.get("runs", {"limit": 3, "cursor": first["next"]}).json()
    make_runs(5)
    third = api.get("runs", {"limit": 3, "cursor": second["next"]}).json()
    pages = [[run["id"] for run in page["runs"]] for page in (first, second, third)]
    assert list(chain.from_iterable(pages)) == known
    assert third["next"] is None


def test_list_takes_the_filters_of_the_control_room(kit, api):
    good = make_runs(3, function="tests.a", key="k1")
    bad = make_runs(2, function="tests.b", status=RunStatus.FAILED, data={"n": 1})
    make_runs(1, function="tests.b", data={"n": 2})

    def ids(**params: Any) -> set[str]:
        return {run["id"] for run in api.get("runs", params).json()["runs"]}

    assert ids(function="tests.a") == {str(run.pk) for run in good}
    assert ids(status=["failed", "cancelled"]) == {str(run.pk) for run in bad}
    assert ids(function="tests.b", where="data.n=1") == {str(run.pk) for run in bad}
    assert ids(key="k1", id=str(good[0].pk)) == {str(good[0].pk)}
    assert ids(key="k2") == set()


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"statuz": "failed"}, "invalid-filter"),
        ({"status": "nice"}, "invalid-filter"),
        ({"function": ""}, "invalid-filter"),
        ({"function": ["a", "b"]}, "invalid-filter"),
        ({"key": "\x00"}, "invalid-filter"),
        ({"id": "7"}, "invalid-filter"),
        ({"since": "yesterday"}, "invalid-filter"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "invalid-filter"),
        ({"until": "9999-12-31T23:59:59-12:00"}, "invalid-filter"),
        ({"since": "2026-13-45T00:00:00Z"}, "invalid-filter"),
        ({"where": "data__x=1"}, "invalid-filter"),
        ({"where": "data.x') or 1=1 --=1"}, "invalid-filter"),
        ({"where": "origin.x=1"}, "invalid-filter"),
        ({"where": "data.x=1e400"}, "invalid-filter"),
        ({"where": 'data.x="\\u0000"'}, "invalid-filter"),
        ({"where": 'data.x="\\ud800"'}, "invalid-filter"),
        ({"where": "data.x=" + "[" * 200 + "]" * 200}, "invalid-filter"),
        ({"data__secret": "x"}, "invalid-filter"),
        ({"cursor": "x"}, "invalid-filter"),
        ({"cursor": "\u00e9"}, "invalid-filter"),
        ({"cursor": "bgAAAAAAAAAB"}, "invalid-filter"),
        ({"cursor": "x" * 101}, "invalid"),
        ({"limit": "0"}, "invalid"),
        ({"limit": "201"}, "invalid"),
        ({"limit": "many"}, "invalid"),
    ],
)
def test_filters_and_cursors_that_cannot_be_are_refused(kit, api, params, code):
    make_runs(1)
    problem(api.get("runs", params), 422, code)


def test_filter_that_is_misspelt_gets_a_hint(kit, api):
    found = problem(api.get("runs", {"statuz": "failed"}), 422, "invalid-filter")
    assert "Did you mean 'status'?" in found["detail"]


def test_lists_and_pages_take_the_same_queries_for_many(
    kit, api, django_assert_num_queries
):
    def asked(path: str, params: Any = None) -> list[str]:
        from django.db import connection
        from django.test.utils import CaptureQueriesContext

        with CaptureQueriesContext(connection) as queries:
            assert api.get(path, params).status_code == 200
        return [query["sql"] for query in queries]

    few = make_runs(2)
    make_steps(few[0], 2)
    paths = ["runs", f"runs/{few[0].pk}/steps", f"runs/{few[0].pk}/trace", "schedules"]
    api.get("runs")  # Django's caches, and the key's last use
    before = {path: asked(path) for path in paths}
    make_runs(50)
    make_steps(few[1], 50)
    paths = [path.replace(str(few[0].pk), str(few[1].pk)) for path in paths]
    after = [asked(path, None) for path in paths]
    assert [len(queries) for queries in after] == [len(q) for q in before.values()]
    for queries in after:
        assert not any("COUNT(" in sql or '"output"' in sql for sql in queries)
    for sql in asked("runs", {"limit": 200}):
        assert '"durable_jobs_run"."data"' not in sql


# One run


def test_run_trace_and_steps_are_returned(kit, api, sleeper):
    run = sleeper.enqueue({"bed": 7})
    kit.run_until_idle()
    shown = api.get(f"runs/{run.pk}").json()
    assert (shown["status"], shown["function"]) == ("waiting", sleeper.id)
    assert (shown["data"], shown["output"], shown["hidden"]) == (
        {"bed": 7},
        None,
        False,
    )
    trace = api.get(f"runs/{run.pk}/trace").json()
    assert [(row["name"], row["status"]) for row in trace["steps"]] == [
        ("before", "completed"), ("night", "sleeping"),
    ]  # fmt: skip
    steps = api.get(f"runs/{run.pk}/steps").json()["steps"]
    assert [step["key"] for step in steps] == [row["key"] for row in trace["steps"]]
    step = api.get(f"runs/{run.pk}/steps/{steps[0]['key']}").json()
    assert step["output"] == {"secret": "s3cret"}
    problem(api.get(f"runs/{run.pk}/steps/none"), 404, "not-found")
    problem(api.get(f"runs/{run.pk}/steps/%00"), 404, "not-found")


def test_step_has_its_input_and_its_logs(kit, program):
    calls = []

    def charge(order, currency):
        calls.append(1)
        logger.warning("attempt %d with %s", len(calls), order["card"])
        if len(calls) == 1:
            raise OSError("once")

    run = durable.function(id="tests.charging")(
        lambda ctx: ctx.step.run("charge", charge, {"card": "s3cret"}, currency="EUR")
    ).enqueue()
    kit.advance("1h")
    path = f"runs/{run.pk}/steps/{run.steps.get().key}"
    both, reader = program("runs:read", "payloads:read"), program("runs:read")

    step = both.get(path).json()
    assert step["input"] == {
        "args": [{"card": "s3cret"}],
        "kwargs": {"currency": "EUR"},
    }
    (line,) = step["logs"]["lines"]
    assert step["logs"]["left_out"] == 0
    assert line["at"]
    assert (line["level"], line["logger"], line["message"]) == (
        "WARNING",
        "project.tests",
        "attempt 2 with s3cret",
    )
    (attempt,) = step["attempts"]
    assert attempt["logs"]["lines"][0]["message"] == "attempt 1 with s3cret"

    hidden = reader.get(path)
    assert b"s3cret" not in hidden.content
    step = hidden.json()
    assert (step["hidden"], step["input"], step["logs"]) == (True, None, None)
    assert step["attempts"][0]["logs"] is None


def test_payloads_need_their_permission(kit, program, sleeper, failing):
    runs = [sleeper.enqueue({"bed": "s3cret"}), failing.enqueue({"a": "s3cret"})]
    kit.advance("2d")
    (step,) = runs[1].steps.all()
    paths = [
        path
        for run in runs
        for path in (f"runs/{run.pk}", f"runs/{run.pk}/trace", f"runs/{run.pk}/result")
    ]
    paths += [f"runs/{runs[1].pk}/steps/{step.key}", f"runs/{runs[1].pk}/steps", "runs"]
    reader, both = program("runs:read"), program("runs:read", "payloads:read")
    by_permission = program_of(user_with("view_run"), "runs:read", "payloads:read")
    person = person_of(user_with("view_run", is_staff=True))
    for path in paths:
        for who in (reader, by_permission, person):
            assert b"s3cret" not in who.get(path).content, path
    assert b"s3cret" in both.get(f"runs/{runs[0].pk}").content
    hidden = reader.get(f"runs/{runs[1].pk}/result").json()
    assert hidden["hidden"]
    assert hidden["error"] == {"type": "ValueError"}
    assert "s3cret" in both.get(f"runs/{runs[1].pk}/result").json()["error"]["message"]
    # Nor may it be guessed, letter by letter.
    for who in (reader, by_permission, person):
        guess = who.get("runs", {"where": "data.bed=s3cret"})
        problem(guess, 403, "forbidden")


def test_payloads_are_returned_as_stored(kit, api):
    large = {"int": 10**30, "float": 1e20, "text": "</script>\u2028", "none": None}
    run = durable.function(id="tests.echo")(lambda ctx: [large, ()]).enqueue(large)
    kit.run_until_idle()
    shown = api.get(f"runs/{run.pk}").json()
    assert shown["data"]["text"] == large["text"]
    assert shown["data"]["int"] == {"$durable": "int", "value": str(10**30)}
    assert shown["output"][0] == shown["data"]


# The result


def test_result_is_waited_for_to_the_end_of_the_run(kit, api):
    run = durable.function(id="tests.quick")(lambda ctx: {"n": 7}).enqueue()
    response = api.get(f"runs/{run.pk}/result", {"wait": 30})
    assert response.status_code == 200
    assert response.json() == {
        "id": str(run.pk), "status": "completed", "reason": "", "output": {"n": 7},
        "error": None, "hidden": False,
    }  # fmt: skip


def test_run_that_does_not_end_in_time_is_pending(kit, api, sleeper):
    run = sleeper.enqueue()
    for params in ({}, {"wait": 30}):
        response = api.get(f"runs/{run.pk}/result", params)
        assert response.status_code == 202
        assert set(response.json()) == {"id", "status"}
    assert response.json() == {"id": str(run.pk), "status": "waiting"}
    for wait in (-1, 61, "long", "nan", "inf"):
        problem(api.get(f"runs/{run.pk}/result", {"wait": wait}), 422, "invalid")


class Elsewhere:
    """A notifier whose workers are other processes."""

    manual_clock = False

    def notify(self, queue: str, work: int) -> None:
        pass

    def notify_at(self, moment: Any, queue: str) -> None:
        pass

    def run_pending(self) -> bool:
        return False


def test_run_that_ends_in_another_process_is_answered_at_once(
    kit, api, sleeper, monkeypatch
):
    run = sleeper.enqueue()
    looked = []

    def meanwhile(seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 3:
            Run.objects.get(pk=run.pk).cancel("closed")

    monkeypatch.setattr("durable_jobs.control.runs.time.sleep", meanwhile)
    with notifier.using(Elsewhere()):
        response = api.get(f"runs/{run.pk}/result", {"wait": 60})
    assert response.status_code == 200
    assert response.json()["reason"] == "closed"
    assert len(looked) == 3


def test_waiting_requests_are_limited(kit, api, sleeper, monkeypatch):
    run = durable.function(id="tests.quick")(lambda ctx: 7).enqueue()
    monkeypatch.setattr(long_poll, "_waiters", threading.BoundedSemaphore(1))
    with long_poll._waiters:
        # Without waiting, no run is executed.
        assert api.get(f"runs/{run.pk}/result", {"wait": 30}).status_code == 202
    assert api.get(f"runs/{run.pk}/result", {"wait": 30}).status_code == 200
    assert long_poll._waiters.acquire(blocking=False), "the place was released"


def test_run_deleted_while_it_is_awaited_is_not_found(kit, api, sleeper, monkeypatch):
    run = sleeper.enqueue()
    monkeypatch.setattr(
        Run, "wait", lambda self, timeout: self.delete() and self.refresh_from_db()
    )
    problem(api.get(f"runs/{run.pk}/result", {"wait": 1}), 404, "not-found")


# Actions


def test_action_is_applied_and_names_its_user(kit, api, sleeper, failing):
    run = sleeper.enqueue({"bed": 1})
    kit.run_until_idle()

    def action(name: str, body: Any = None, of: Run = run, status: int = 200) -> Any:
        response = api.post(f"runs/{of.pk}/{name}", body)
        assert response.status_code == status, response.content
        return response.json()

    assert action("pause", {"reason": "look"})["run"]["status"] == "paused"
    assert action("resume")["run"]["status"] in ("waiting", "queued")
    assert action("wake")["new_run"] is None
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"slept": 1}
    again = action("rerun", {"from_step": "night"}, status=201)["new_run"]
    assert Run.objects.get(pk=again["id"]).parent_id == run.pk
    edited = action("rerun", {"data": {"bed": 2}}, status=201)["new_run"]
    assert Run.objects.get(pk=edited["id"]).data == {"bed": 2}
    second = Run.objects.get(pk=edited["id"])
    assert action("cancel", {"reason": "stop"}, second)["run"]["reason"] == "stop"
    assert action("redrive", of=second)["run"]["status"] == "queued"
    said = LogEntry.objects.filter(object_id=str(run.pk)).order_by("pk")
    by = said[0].change_message.partition(" (by ")[2]
    assert by.startswith("API key tests (dj_")
    assert said[0].change_message.startswith("Run paused: look")


def test_wait_is_answered_by_the_key_of_its_step(kit, api):
    @durable.function(id="tests.asks")
    def asks(ctx: durable.Context) -> Any:
        return ctx.step.wait_for_event("review", "tests/reviewed", timeout="7d").data

    run = asks.enqueue()
    kit.run_until_idle()
    (step,) = run.steps.all()
    body = {"step": step.key, "value": {"stars": 5}}
    assert api.post(f"runs/{run.pk}/answer", body).status_code == 200
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"stars": 5}
    problem(api.post(f"runs/{run.pk}/answer", body), 409, "refused")
    problem(api.post(f"runs/{run.pk}/answer", {"step": ""}), 422, "invalid")
    problem(api.post(f"runs/{run.pk}/answer"), 422, "invalid")


def test_concurrent_cancels_both_learn_which_was_first(kit, api, sleeper):
    run = sleeper.enqueue()
    assert api.post(f"runs/{run.pk}/cancel").status_code == 200
    found = problem(api.post(f"runs/{run.pk}/cancel"), 409, "refused")
    assert "is cancelled" in found["detail"]
    assert LogEntry.objects.filter(object_id=str(run.pk)).count() == 1


def test_run_of_a_removed_function_cannot_be_rerun(kit, api):
    (run,) = make_runs(1, function="tests.gone")
    problem(api.post(f"runs/{run.pk}/rerun"), 409, "refused")
    (failed,) = make_runs(1, function="tests.gone", status=RunStatus.FAILED)
    problem(api.post(f"runs/{failed.pk}/redrive"), 409, "refused")


def test_rerun_from_an_unknown_step_is_refused(kit, api, sleeper):
    run = sleeper.enqueue()
    response = api.post(f"runs/{run.pk}/rerun", {"from_step": "nix"})
    problem(response, 422, "invalid")
    assert Run.objects.count() == 1


@pytest.mark.parametrize("path", ["", "/trace", "/steps", "/steps/x", "/result"])
def test_missing_and_hidden_objects_have_the_same_response(kit, sleeper, path):
    run = sleeper.enqueue()
    stranger = person_of(user_with("cancel_run", is_staff=True))
    unknown = problem(stranger.get(f"runs/{NOBODY}{path}"), 404, "not-found")
    assert problem(stranger.get(f"runs/{run.pk}{path}"), 404, "not-found") == unknown
    posted = [stranger.post(f"runs/{id}/pause") for id in (NOBODY, run.pk)]
    assert [problem(one, 404, "not-found") for one in posted] == [unknown, unknown]


class OwnRuns:
    """An authentication backend that lets users see the runs of their own function."""

    def authenticate(self, request: Any, **kwargs: Any) -> None:
        return None

    def get_user(self, pk: Any) -> Any:
        return User.objects.filter(pk=pk).first()

    def has_perm(self, user: Any, permission: str, obj: Any = None) -> bool:
        return isinstance(obj, Run) and obj.function == f"of.{user.username}"


def test_permissions_on_single_runs_count(kit, settings):
    settings.AUTHENTICATION_BACKENDS = [
        "django.contrib.auth.backends.ModelBackend",
        f"{__name__}.OwnRuns",
    ]
    user = user_with(is_staff=True)
    (own,) = make_runs(1, function=f"of.{user.username}", output="mine")
    (foreign,) = make_runs(1, function="of.others")
    person = person_of(user)
    assert person.get(f"runs/{own.pk}").json()["output"] == "mine"
    problem(person.get(f"runs/{foreign.pk}"), 404, "not-found")
    problem(person.get("runs"), 403, "forbidden")


def test_invalid_ids_are_not_found(kit, api):
    for id in ("x", "7", str(uuid.UUID(int=0)).upper().replace("0", "F"), "../events"):
        problem(api.get(f"runs/{id}"), 404, "not-found")
    problem(api.get("nothing/here"), 404, "not-found")
    problem(api.post("nothing/here"), 404, "not-found")
    problem(api.get(""), 404, "not-found")
