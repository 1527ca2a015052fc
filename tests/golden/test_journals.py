"""Recorded runs of each release continue today, and end as without an upgrade.

They start from every recorded stage: each idle state, and a crash half-way.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, migrations
from pytest_django import Settings

from tests.golden import journals, rows
from tests.golden.cases import CASES
from tests.golden.rows import Unreadable
from tests.golden.worlds import KEPT, Resumed, outcome, record, results

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quiet(settings: Settings) -> Iterator[None]:
    """Keep every run, silence the logs of simulated faults, and leave no row."""
    if connection.vendor != "postgresql":
        pytest.skip("recordings are made on PostgreSQL")
    settings.DURABLE_JOBS = KEPT
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    rows.clear()


@pytest.mark.parametrize(("release", "case"), list(journals.recorded()))
def test_recorded_runs_go_on_in_the_code_of_today(release: str, case: str) -> None:
    assert case in CASES, f"{release} has recorded {case}: its functions must stay."
    journal = {**journals.read(release, case), "release": release}
    end = journal["stages"][-1]
    for stage in journal["stages"]:
        rows.load(stage, journal)
        ended = Resumed(stage).go_on(CASES[case])
        where = f"{release}/{case}, {stage['state']} after {stage['actions']}"
        died = stage["state"].startswith("died")
        # After a death inside branches, the rest may be recorded in another order.
        options = {"besides": frozenset(ended["either"]), "ordered": not died}
        expected = outcome(end["tables"], **options)
        assert outcome(ended["tables"], **options) == expected, where
        kept = results(ended["tables"])
        for step, recorded in results(stage["tables"]).items():
            assert kept[step] == recorded, where
        if not died:  # a crash may have cost a second call
            assert ended["bodies"] == end["bodies"], where


def test_release_has_recorded_every_function() -> None:
    here = {
        case for release, case in journals.recorded() if release == journals.release()
    }
    assert here == set(CASES), (
        "Record the runs of this release: python -m tests.golden record"
    )


def test_recordings_are_the_same_each_time() -> None:
    first, second = (record("rerun", CASES["rerun_from_a_step"]) for _ in range(2))
    assert first == second


# A release that cannot continue says what to do


@pytest.fixture
def journal() -> dict[str, Any]:
    """Return a recording of a made-up release."""
    found = journals.read(journals.release(), "sleep")
    return {**copy.deepcopy(found), "release": "0.0"}


def sleeping(journal: dict[str, Any]) -> Any:
    """Return the stage in which the run sleeps."""
    return next(one for one in journal["stages"] if one["state"] == "at rest")


def test_columns_that_came_since_have_their_defaults(journal: dict[str, Any]) -> None:
    stage = sleeping(journal)
    for column in ("wake_requested", "crash_count", "reason"):
        journal["columns"]["durable_jobs_run"].remove(column)
        for row in stage["tables"]["durable_jobs_run"]:
            del row[column]
    rows.load(stage, journal)
    ended = Resumed(stage).go_on(CASES["sleep"])
    assert outcome(ended["tables"]) == outcome(journal["stages"][-1]["tables"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda tables: tables.update(durable_jobs_gone=[{"id": 1}]), "_gone, which"),
        (lambda tables: run(tables).update(old=1), "durable_jobs_run.old, which is"),
        (lambda tables: run(tables).update(status="asleep"), "durable_jobs_run: "),
    ],
)
def test_rows_that_no_longer_fit_ask_for_a_data_migration(
    journal: dict[str, Any], change: Any, problem: str
) -> None:
    stage = sleeping(journal)
    change(stage["tables"])
    with pytest.raises(Unreadable, match=problem) as raised:
        rows.load(stage, journal)
    assert "release 0.0" in str(raised.value)
    assert "data migration" in str(raised.value)


def run(tables: Any) -> dict[str, Any]:
    """Return the row of the run."""
    (row,) = tables["durable_jobs_run"]
    found: dict[str, Any] = row
    return found


def test_data_migrations_since_then_are_run(
    journal: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(apps: Any, editor: Any) -> None:
        apps.get_model("durable_jobs", "Run").objects.update(function="sleeper")

    last = rows.newest_migration()
    changed = migrations.Migration(last, rows.APP)
    changed.operations = [migrations.RunPython(rename)]
    stage = sleeping(journal)
    run(stage["tables"]).update(function="napper", old_name="x")
    monkeypatch.setitem(
        rows.CARRIED, "durable_jobs_run.old_name", lambda row: row.update(version="x")
    )
    monkeypatch.setattr(rows, "later", lambda since: [changed])
    rows.load(stage, journal)
    ended = Resumed(stage).go_on(CASES["sleep"])
    (row,) = outcome(ended["tables"])["runs"]
    assert (row["function"], row["version"], row["status"]) == (
        "sleeper",
        "x",
        "completed",
    )
