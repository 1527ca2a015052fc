"""The steps of a long run that its page draws."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_jobs import ids
from durable_jobs.models import Run, Step
from durable_jobs.queries import step_outline, timeline_choice
from durable_jobs.queries.step_outline import Phase, StepOutline
from durable_jobs.queries.timeline_choice import ChosenStep, FoldedSteps, StepPage
from tests.admin.conftest import make_runs, make_steps

pytestmark = pytest.mark.django_db


@pytest.fixture
def run() -> Run:
    return make_runs(1, status="running", ended_at=None)[0]


def add(run: Run, name: str, parent: Step | None = None, **values) -> Step:
    """Insert one step of a run, after the others."""
    key = ids.step_key(name, parent.key if parent else "")
    known = {
        "id": ids.step_pk(run.pk, key),
        "run": run,
        "key": key,
        "name": name,
        "kind": "run",
        "parent": parent,
        "position": run.steps.count(),
        "status": "completed",
        "started_at": run.started_at,
        "ended_at": run.started_at + timedelta(milliseconds=10),
    }
    return Step.objects.create(**{**known, **values})


def change(run: Run, *numbers: int, **values) -> None:
    names = [f"step {number}" for number in numbers]
    Step.objects.filter(run=run, name__in=names).update(**values)


def names(page: StepPage) -> list[str]:
    return [item.step.name for item in page.items if isinstance(item, ChosenStep)]


def folds(page: StepPage) -> list[tuple[str, str, int]]:
    return [
        (item.first.name, item.last.name, item.summary.total)
        for item in page.items
        if isinstance(item, FoldedSteps)
    ]


def test_a_short_run_is_drawn_in_full(run: Run) -> None:
    make_steps(run, 40)
    page = timeline_choice.overview(StepOutline(run))
    assert names(page) == [f"step {number}" for number in range(40)]
    assert not folds(page)


def test_a_long_run_shows_its_ends_and_folds_the_rest(run: Run) -> None:
    make_steps(run, 900)
    page = timeline_choice.overview(StepOutline(run))
    assert names(page) == [
        f"step {number}" for number in (*range(10), *range(890, 900))
    ]
    assert folds(page) == [("step 10", "step 889", 880)]
    (fold,) = (item for item in page.items if isinstance(item, FoldedSteps))
    assert fold.index == 10
    assert fold.summary.median == timedelta(milliseconds=10)
    assert fold.summary.counts == {Phase.DONE: 880}


def test_steps_that_failed_run_or_wait_are_drawn_wherever_they_are(run: Run) -> None:
    make_steps(run, 900)
    change(run, 850, status="failed")
    change(run, 400, status="running", ended_at=None)
    change(run, 600, status="sleeping", ended_at=None)
    page = timeline_choice.overview(StepOutline(run))
    assert {"step 850", "step 400", "step 600"} < set(names(page))
    assert [total for _, _, total in folds(page)] == [390, 199, 249, 39]


def test_the_slowest_steps_are_drawn(run: Run) -> None:
    make_steps(run, 900)
    for number in (100, 300):
        change(run, number, ended_at=run.started_at + timedelta(minutes=number))
    page = timeline_choice.overview(StepOutline(run))
    assert {"step 100", "step 300"} < set(names(page))


def test_no_more_rows_are_drawn_than_there_is_room_for(run: Run) -> None:
    make_steps(run, 900, status="failed")
    page = timeline_choice.overview(StepOutline(run))
    assert names(page) == [
        f"step {number}" for number in range(timeline_choice.MAX_ROWS)
    ]
    ((_, _, total),) = folds(page)
    assert total == 820


def test_a_step_that_is_named_is_drawn(run: Run) -> None:
    make_steps(run, 900)
    outline = StepOutline(run)
    page = timeline_choice.overview(outline, outline.find(ids.step_key("step 500")))
    assert "step 500" in names(page)
    assert outline.find("no such key") is None


def test_parents_of_drawn_steps_are_drawn(run: Run) -> None:
    make_steps(run, 900)
    group = add(run, "outer", kind="group")
    inner = add(run, "inner", group, kind="group")
    add(run, "deep", inner, status="failed")
    make = timeline_choice.overview(StepOutline(run))
    deepest = [(item.depth, item.step.name) for item in make.items[-3:]]
    assert deepest == [(0, "outer"), (1, "inner"), (2, "deep")]


def test_a_map_of_many_branches_is_one_row_and_its_open_branches(run: Run) -> None:
    each = add(run, "each", kind="map", status="running", ended_at=None)
    for number in range(60):
        add(run, f"{number}", each, kind="branch")
    failed = Step.objects.filter(run=run, name__in=["30", "31"])
    failed.update(status="failed")
    for number in range(40, 58):
        branch = Step.objects.get(run=run, name=f"{number}")
        Step.objects.filter(pk=branch.pk).update(status="running", ended_at=None)
        add(run, "charge", branch, status="running", ended_at=None)
    page = timeline_choice.overview(StepOutline(run))
    shown = names(page)
    assert shown[:3] == ["each", "30", "31"]
    assert shown.count("charge") == timeline_choice.MAX_BRANCHES - 2
    assert not folds(page)
    item = page.items[0]
    assert isinstance(item, ChosenStep)
    assert item.hidden is not None
    assert item.hidden.total == 60
    assert item.hidden.counts == {Phase.DONE: 40, Phase.FAILED: 2, Phase.RUNNING: 18}


def test_an_open_step_is_in_the_phase_of_what_is_in_it(run: Run) -> None:
    each = add(run, "each", kind="map", status="running", ended_at=None)
    branch = add(run, "0", each, kind="branch", status="running", ended_at=None)
    nap = add(run, "nap", branch, kind="sleep", status="sleeping", ended_at=None)
    outline = StepOutline(run)
    assert {step.phase for step in outline.steps.values()} == {Phase.WAITING}
    assert [step.pk for step in outline.innermost(Phase.WAITING)] == [nap.pk]


def test_a_group_lasts_until_its_last_step(run: Run) -> None:
    group = add(run, "both", kind="group", ended_at=run.started_at)
    end = run.started_at + timedelta(seconds=9)
    add(run, "one", group, ended_at=end)
    assert StepOutline(run).steps[group.pk].until == end
    add(run, "two", group, status="running", ended_at=None)
    outline = StepOutline(run)
    assert outline.steps[group.pk].until is None
    assert outline.steps[group.pk].phase == Phase.RUNNING


def test_steps_are_listed_by_phase_and_name(run: Run) -> None:
    make_steps(run, 250)
    change(run, 7, 17, 8, status="failed")
    outline = StepOutline(run)
    page = timeline_choice.matching(outline, Phase.FAILED, "", 1)
    assert names(page) == ["step 7", "step 8", "step 17"]
    page = timeline_choice.matching(outline, Phase.FAILED, "STEP 1", 1)
    assert names(page) == ["step 17"]
    page = timeline_choice.matching(outline, None, "step", 3)
    assert (page.total, page.page, page.pages, len(page.items)) == (250, 3, 3, 50)
    assert timeline_choice.matching(outline, None, "step", 99).page == 3
    assert timeline_choice.matching(outline, None, "none", 1).items == []


def test_the_slowest_are_listed_by_duration(run: Run) -> None:
    make_steps(run, 30)
    change(run, 12, ended_at=run.started_at + timedelta(hours=1))
    change(run, 20, ended_at=run.started_at + timedelta(hours=2))
    page = timeline_choice.slowest(StepOutline(run), "")
    assert names(page)[:3] == ["step 20", "step 12", "step 0"]
    assert len(page.items) == timeline_choice.MOST_SLOWEST


def test_a_listed_step_names_its_parents(run: Run) -> None:
    group = add(run, "outer", kind="group")
    add(run, "deep", group, status="failed")
    page = timeline_choice.matching(StepOutline(run), Phase.FAILED, "", 1)
    (item,) = page.items
    assert isinstance(item, ChosenStep)
    assert item.path == ("outer",)


def test_children_of_a_step_are_listed_by_page(run: Run) -> None:
    each = add(run, "each", kind="map")
    for number in range(130):
        add(run, f"{number}", each, kind="branch", position=number + 1)
    outline = StepOutline(run)
    page = timeline_choice.children(outline, outline.steps[each.pk], 2)
    assert names(page) == ["each", *(f"{number}" for number in range(100, 130))]
    assert (page.total, page.pages) == (130, 2)
    assert timeline_choice.page_of(100) == 2
    assert names(timeline_choice.children(outline, None, 1)) == ["each"]


def test_too_many_steps_leave_out_completed_ones(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_outline, "MAX_STEPS", 30)
    make_steps(run, 100)
    change(run, 90, status="failed")
    outline = StepOutline(run)
    assert outline.is_partial
    assert len(outline.steps) == 30
    assert "step 90" in names(timeline_choice.overview(outline))
