"""The filters of runs: valid filters round-trip, invalid ones are refused by name."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs import clock, durable, ids
from durable_jobs.models import Run, Subject
from durable_jobs.queries import run_filter
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.statuses import LIVE, RunStatus
from tests.admin.conftest import make_runs

pytestmark = pytest.mark.django_db

NUL, HALF = "\x00", "\ud800"

texts = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters=NUL),
    min_size=1,
    max_size=40,
)
keys = st.from_regex(r"\A[A-Za-z_][\w-]{0,20}\Z").filter(str.isprintable)
uuids = st.uuids().map(str)
# Naive: in the project's time zone.
moments = st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001
paths = st.builds(
    "{}.{}={}".format,
    st.sampled_from(["data", "output", "error"]),
    st.lists(keys, min_size=1, max_size=10).map(".".join),
    texts | st.integers().map(str) | st.none().map(json.dumps),
)
VALUES = {
    "q": texts.filter(str.strip) | uuids,
    "status": st.lists(st.sampled_from(RunStatus.values), min_size=1, max_size=8),
    "function": texts,
    "subject": st.builds("{}.{}:{}".format, keys, keys, texts),
    "key": texts,
    "event": texts,
    "parent": uuids,
    "id": st.lists(uuids, min_size=1, max_size=5),
    "before": uuids,
    "trigger": texts,
    "version": texts,
    "queue": texts,
    "worker": texts,
    "where": st.lists(paths, min_size=1, max_size=10),
    "time": st.sampled_from(run_filter.TIMES),
    "period": st.sampled_from(list(run_filter.PERIODS)),
    "since": moments.map(str),
    "until": moments.map(str),
}


def test_conditions_all_have_a_test():
    assert set(VALUES) == set(run_filter.NAMES)


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_filter_round_trips_as_it_was_written(params):
    read = RunFilter.parse(params)
    assert RunFilter.parse(json.loads(json.dumps(read.as_params()))) == read
    assert {name: tuple(values) for name, values in read.as_params().items()} == {
        name: (value,) if isinstance(value, str) else tuple(value)
        for name, value in params.items()
    }
    assert bool(read) == bool(params)
    frozen = read.frozen()
    assert "period" not in frozen.values
    assert RunFilter.parse(frozen.as_params()) == frozen


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_parsed_filters_can_all_be_queried(params):
    assert list(RunFilter.parse(params).narrow(Run.objects.all())[:1]) == []


@given(st.text(max_size=30) | st.from_regex(r"(data|output|error)[.=\w\[\]\"'%-]*"))
def test_where_is_read_or_refused(text):
    with suppress(durable.FilterError):
        assert RunFilter.parse({"where": text}).as_params() == {"where": [text]}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("statuss", "failed", "Unknown filter 'statuss'. Did you mean 'status'?"),
        ("data__x", "1", "Unknown filter 'data__x'"),
        ("id__gt", "1", "Unknown filter 'id__gt'"),
        ("__class__", "1", "Unknown filter"),
        ("status", "bad", "Expected a status among queued"),
        ("status", [], None),
        ("status", ["failed", "bad"], "Expected a status among queued"),
        ("status", ["failed"] * 9, "Expected at most 8 of the filter 'status', got 9"),
        ("function", ["a", "b"], "Expected at most 1 of the filter 'function'"),
        ("function", "", "Expected 1 to 1000 characters as the filter 'function'"),
        ("function", "x" * 1001, "Expected 1 to 1000 characters"),
        ("function", f"a{NUL}b", "Expected 1 to 1000 characters"),
        ("function", f"a{HALF}b", "Expected 1 to 1000 characters"),
        ("subject", "order", "Expected app.model:key as 'subject'"),
        ("subject", "shop.order:", "Expected app.model:key"),
        ("subject", ":7", "Expected app.model:key"),
        ("id", "7", "Expected the id of a run as 'id', got '7'"),
        ("id", ["7"] * 1001, "Expected at most 1000"),
        ("parent", "'; DROP TABLE runs", "Expected the id of a run as 'parent'"),
        ("before", "x", "Expected the id of a run as 'before'"),
        ("time", "due", "Expected one of queued, started, ended as 'time'"),
        ("period", "year", "Expected one of hour, day, week, month as 'period'"),
        ("since", "yesterday", "Expected a date and time as 'since', such as"),
        ("since", "2026-13-01", "Expected a date and time as 'since'"),
        ("since", "2026-02-30T10:00", "Expected a date and time as 'since'"),
        ("since", "0001-01-01T00:00:00+14:00", "Expected a date and time"),
        ("until", "9999-12-31T23:59:59-14:00", "Expected a date and time as 'until'"),
        ("where", "data", "Expected data.path.to.key=value as 'where'"),
        ("where", "data.a", "Expected data.path.to.key=value"),
        ("where", "origin.a=1", "Expected data.path.to.key=value"),
        ("where", "data..a=1", "Expected data.path.to.key=value"),
        ("where", "data.a'b=1", "Expected data.path.to.key=value"),
        ("where", 'data.a"]=1', "Expected data.path.to.key=value"),
        ("where", "data" + ".a" * 11 + "=1", "Expected data.path.to.key=value"),
        ("where", f"data.{'a' * 65}=1", "Expected data.path.to.key=value"),
        ("where", "data.-1=1", "Expected a key, or a position from 0 on"),
        ("where", "data.99999999999999999999=1", "Expected a key, or a position"),
        ("where", "data.a=1e400", "Expected a value that JSON can hold"),
        ("where", 'data.a="\\u0000"', "Expected a value that JSON can hold"),
        ("where", 'data.a="\\ud800"', "Expected a value that JSON can hold"),
        ("where", 'data.a={"\\u0000": 1}', "Expected a value that JSON can hold"),
        ("where", "data.a=" + "[" * 200 + "]" * 200, "Expected a value that JSON can"),
        ("where", ["data.a=1"] * 11, "Expected at most 10"),
    ],
)
def test_invalid_filter_is_refused_with_what_was_expected(name, value, expected):
    if expected is None:
        assert not RunFilter.parse({name: value})
        return
    with pytest.raises(durable.FilterError) as refused:
        RunFilter.parse({name: value})
    assert expected in refused.value.message
    assert refused.value.name == name


@pytest.mark.parametrize("value", [None, 7, 1.5, b"x", {"a": 1}, object()])
@pytest.mark.parametrize("name", run_filter.NAMES)
def test_values_of_other_types_are_read_as_texts_or_refused(name, value):
    with suppress(durable.FilterError):
        read = RunFilter.parse({name: value})
        assert all(isinstance(one, str) for one in read.values[name])


class TestRuns:
    """The runs that a filter finds."""

    def found(self, **params):
        rows = RunFilter.parse(params).narrow(Run.objects.order_by("pk"))
        return list(rows)

    @pytest.mark.parametrize(
        ("stored", "path", "found"),
        [
            ({"a": 7}, "data.a=7", True),
            ({"a": 7}, "data.a=7.0", True),
            ({"a": 7}, 'data.a="7"', False),
            ({"a": "7"}, "data.a=7", False),
            ({"a": "7"}, 'data.a="7"', True),
            ({"a": "red"}, "data.a=red", True),
            ({"a": "red"}, 'data.a="red"', True),
            ({"a": "red"}, "data.a=re", False),
            ({"a": "a=b"}, "data.a=a=b", True),
            ({"a": "x\ny"}, "data.a=x\ny", True),
            ({"a": "\U0001f600 ü"}, "data.a=\U0001f600 ü", True),
            ({"ü": 1}, "data.ü=1", True),
            ({"a": True}, "data.a=true", True),
            ({"a": True}, "data.a=1", False),
            ({"a": False}, "data.a=false", True),
            ({"a": None}, "data.a=null", True),
            ({}, "data.a=null", False),
            ({"a": "NaN"}, "data.a=NaN", True),
            ({"a": 1e20}, "data.a=1e20", True),
            ({"a": ""}, "data.a=", True),
            ({"a": {"b": {"c": 1}}}, "data.a.b.c=1", True),
            ({"a": {"b": 1}}, 'data.a={"b": 1}', True),
            ({"a": [1, {"b": 2}]}, "data.a.1.b=2", True),
            ({"a": [1, 2]}, "data.a=[1,2]", True),
            ({"a": [1, 2]}, "data.a.7=1", False),
            ({"a__b": 1}, "data.a__b=1", True),
            ({"a": {"b": 1}}, "data.a__b=1", False),
            ({"2024_01": 1}, "data.2024_01=1", True),
            ({"in": 1}, "data.in=1", True),
            ({"exact": 1}, "data.exact=1", True),
            ({"a%s": 1, "a": 2}, "data.a=2", True),
            ({"a": "%s' OR 1=1 --"}, "data.a=%s' OR 1=1 --", True),
            ({"a": 1}, "data.a=%s' OR 1=1 --", False),
        ],
    )
    def test_runs_are_found_by_a_path_into_their_json(self, stored, path, found):
        run = make_runs(1, data=stored)[0]
        make_runs(1, data={"other": 1}, output=None)
        assert self.found(where=path) == ([run] if found else [])

    def test_runs_are_found_by_several_paths_into_output_and_error(self):
        run = make_runs(1, data={"a": 1}, output={"b": 2}, error={"type": "Oops"})[0]
        make_runs(1, data={"a": 1}, output={"b": 3})
        wheres = ["data.a=1", "output.b=2", "error.type=Oops"]
        assert self.found(where=wheres) == [run]
        assert self.found(where=[*wheres, "data.a=2"]) == []

    @given(
        value=st.recursive(
            st.integers(-(2**53), 2**53)
            | st.text(
                st.characters(blacklist_categories=["Cs"], blacklist_characters=NUL),
                max_size=20,
            ).filter(lambda text: text not in ("true", "false", "null")),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=4,
        )
    )
    def test_runs_are_found_by_any_json_value(self, value):
        Run.objects.all().delete()
        run = make_runs(1, data={"a": value})[0]
        assert self.found(where=f"data.a={json.dumps(value)}") == [run]

    def test_runs_are_found_by_subject(self):
        run, _other = make_runs(2)
        Subject.objects.create(run=run, model="shop.order", object_pk="7:8 ü")
        assert self.found(subject="shop.Order:7:8 ü") == [run]
        assert self.found(subject="shop.order:7") == []

    def test_runs_are_found_by_a_whole_id_or_key_as_in_the_search_box(self):
        run, event = make_runs(1, key="k 1")[0], make_runs(1, event_id="e 1")[0]
        assert self.found(q=f" {run.pk} ") == self.found(q="k 1") == [run]
        assert self.found(q="e 1") == [event]
        assert self.found(q="k") == []

    def test_runs_are_found_by_columns(self):
        event, parent = str(ids.new_id()), ids.new_id()
        values = {
            "trigger": "tests/other",
            "version": "2",
            "queue": "slow",
            "worker": "w 1",
            "key": "k 1",
            "event_id": event,
            "parent_id": parent,
        }
        run = make_runs(1, **values)[0]
        make_runs(1)
        for name, value in values.items():
            assert self.found(**{name.removesuffix("_id"): str(value)}) == [run], name
        assert self.found(id=[str(run.pk), str(uuid.uuid4())]) == [run]
        assert self.found(before=str(run.pk)) == []

    def test_runs_are_found_by_any_of_several_statuses(self):
        of = {}
        for status in RunStatus.values:
            ended = {} if status not in LIVE else {"ended_at": None}
            token = uuid.uuid4() if status == "running" else None
            of[status] = make_runs(1, status=status, lease_token=token, **ended)[0]
        line = make_runs(1, status="queued", backlog=3, ended_at=None)[0]
        assert self.found(status="queued") == [of["queued"], line]
        assert self.found(status=["failed", "running", "queued"]) == [
            of["queued"],
            of["running"],
            of["failed"],
            line,
        ]
        for status in set(RunStatus.values) - {"queued"}:
            assert self.found(status=status) == [of[status]], status

    @pytest.mark.parametrize("column", run_filter.TIMES)
    def test_runs_are_found_by_a_range_of_a_time(self, column):
        now = clock.now()
        ago = timedelta(hours=5)
        at = {"queued_at": now - ago, "started_at": now - ago, "ended_at": now - ago}
        old = make_runs(1, id=_id(now - ago), **at)[0]
        new = make_runs(1)[0]
        hour = (now - timedelta(hours=1)).isoformat()
        six = (now - timedelta(hours=6)).isoformat()
        assert self.found(time=column, until=hour) == [old]
        assert self.found(time=column, since=hour) == [new]
        assert self.found(time=column, since=six) == [old, new]
        assert self.found(time=column, since=six, until=hour) == [old]
        assert self.found(time=column, period="hour") == [new]
        assert self.found(time=column, period="day") == [old, new]
        assert self.found(time=column, period="day", since=hour) == [new]

    def test_runs_are_found_by_a_time_that_differs_from_their_ids(self):
        now = clock.now()
        late = make_runs(
            1,
            id=_id(now - timedelta(minutes=50)),
            queued_at=now,
            ended_at=now + timedelta(days=2),
        )[0]
        assert self.found(since=now.isoformat()) == [late]
        later = (now + timedelta(days=1)).isoformat()
        assert self.found(time="ended", since=later) == [late]
        assert self.found(time="ended", until=later) == []

    @pytest.mark.parametrize(
        "params",
        [
            {"trigger": "tests/event"},
            {"where": "data.large=" + "x" * 900, "status": "completed"},
            {"time": "started", "period": "hour"},
        ],
    )
    def test_filter_without_an_index_searches_the_newest_runs(
        self, monkeypatch, params
    ):
        monkeypatch.setattr(run_filter, "MAX_SEARCHED", 3)
        runs = make_runs(5, data={"large": "x" * 900})
        assert RunFilter.parse(params).unindexed
        assert self.found(**params) == runs[2:]
        assert self.found(**params, before=str(runs[4].pk)) == runs[1:4]

    @pytest.mark.parametrize(
        "params",
        [
            {},
            {"status": ["failed", "queued"], "function": "f", "key": "k"},
            {"time": "ended", "period": "hour"},
            {"since": "2026-01-01"},
            {"time": "started"},
        ],
    )
    def test_filter_with_an_index_searches_all_runs(self, params):
        assert not RunFilter.parse(params).unindexed


def _id(moment):
    return uuid.UUID(
        int=run_filter.earliest_id(moment).int + ids.new_id().int % (1 << 62)
    )


HISTORY = 200_000
PLANS = {
    "queued": {"durable_run_ready", "durable_run_backlog"},
    "running": {"durable_run_running"},
    "failed": {"durable_run_attention"},
    "waiting": {"durable_run_attention"},
}


@pytest.fixture
def history(db):
    """Insert many completed runs, and before them a few of each other status."""
    if connection.vendor != "postgresql":
        pytest.skip("plans are tested on PostgreSQL")
    few = clock.now() - timedelta(days=30)
    for status in RunStatus.values:
        ended = None if status in LIVE else few
        for backlog in (None, 1):
            token = uuid.uuid4() if status == "running" else None
            make_runs(
                30,
                status=status,
                ended_at=ended,
                backlog=backlog,
                lease_token=token,
                data={},
                output=None,
            )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO durable_jobs_run (
                id, function, version, status, reason, trigger, key, data, parent_step,
                parent_relation, queue, due_at, run_order, worker, attempt,
                claim_count, crash_count, wake_requested,
                queued_at, started_at, ended_at
            )
            SELECT ('ffffffff-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
                'f' || n %% 30, '', 'completed', '', 'e', '', '{}', '', '', 'default',
                now(), now(), '', 0, 1, 0, false, now(), now(), now()
            FROM generate_series(1, %s) AS n
            """,
            [HISTORY],
        )
        cursor.execute("ANALYZE durable_jobs_run")


def test_rare_statuses_are_found_beside_many_completed_runs(history):
    for statuses in [[one] for one in PLANS] + [list(PLANS), ["failed", "queued"]]:
        rows = RunFilter.parse({"status": statuses}).narrow(Run.objects.order_by("-pk"))
        plan = rows[:1001].explain(analyze=True, buffers=True, timing=False)
        for status in statuses:
            assert any(index in plan for index in PLANS[status]), plan
        assert "Seq Scan" not in plan, plan
        assert "run_pkey" not in plan, plan
        count = rows[:1001].count()
        assert count == 60 * len(statuses)


@pytest.mark.parametrize("status", ["failed", "cancelled", "skipped", "paused"])
def test_runs_of_a_function_are_found_by_their_end(history, status):
    make_runs(30, status=status, function="f1", **_ended(status))
    asked = {"status": status, "function": "f1"}
    rows = RunFilter.parse(asked).narrow(Run.objects.order_by("-pk"))
    plan = rows[:1001].explain(analyze=True, timing=False)
    assert "durable_run_outcome" in plan, plan
    assert "Removed by Filter" not in plan, plan
    assert rows.count() == 30


def _ended(status):
    return {"ended_at": None if status in LIVE else clock.now()}


def test_long_filter_name_costs_no_long_search_for_a_similar_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[str] = []

    def similar(name: str, *args: object, **kwargs: object) -> list[str]:
        searched.append(name)
        return []

    monkeypatch.setattr("difflib.get_close_matches", similar)
    with pytest.raises(durable.FilterError, match="Unknown filter 'aaaa"):
        RunFilter.parse({"a" * 3_000_000: "x"})
    assert searched == ["a" * 80]
