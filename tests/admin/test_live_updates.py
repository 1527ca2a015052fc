"""What a page of a live run gets when the run changes: the changed lines alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from durable_jobs import clock, durable, ids
from durable_jobs.admin.runs import timeline_update
from durable_jobs.admin.runs.views import STOP_POLLING
from durable_jobs.models import Run, Step
from durable_jobs.testing import Kit
from tests.admin.conftest import Page, make_runs, make_steps, page_of

pytestmark = pytest.mark.django_db

LIVE = {"HX-Request": "true"}
#: The largest update of a run of 300 branches, in bytes.
LARGEST = 20_000


class Watcher:
    """A page that polls: what it has seen, and the lines that it has."""

    def __init__(self, client: Client, run: Run, query: str = "") -> None:
        self.client, self.run = client, run
        self.page = Page(client.get(page_of(run) + query).content.decode())

    @property
    def lines(self) -> list[str]:
        found = [attrs.get("data-durable-row") for _, attrs in self.page.tags]
        return [one for one in found if one]

    @property
    def poll(self) -> str:
        (found,) = (a for _, a in self.page.tags if "data-durable-live" in a)
        return found["hx-get"] or ""

    def ask(self, lines: list[str] | None = None):
        known = "~".join(self.lines if lines is None else lines)
        url = f"{page_of(self.run)}{self.poll}&rows={known}"
        return self.client.get(url, headers=LIVE)


def swaps(response) -> dict[str, str]:
    """Return what a response swaps, by id or place."""
    found, inserted = {}, ""
    for tag, attrs in Page(response.content.decode()).tags:
        how = attrs.get("hx-swap-oob") or ""
        if tag == "table":
            inserted = how
        elif how or (tag == "tbody" and inserted):
            found[attrs["id"] or ""] = how or inserted
        elif tag == "template":
            inserted = ""
    return found


def row_of(step: Step) -> str:
    return f"row-{step.key[:12]}"


@pytest.fixture
def run(db: None) -> Run:
    """Give a running run of 60 completed steps and three running ones."""
    now = clock.now()
    run = make_runs(
        1, status="running", ended_at=None, started_at=now - timedelta(minutes=1)
    )[0]
    make_steps(run, 63)
    last = Step.objects.filter(run=run, position__gte=60)
    last.update(status="running", ended_at=None)
    return run


def end(run: Run, name: str, **values) -> Step:
    values = {"status": "completed", "ended_at": clock.now(), **values}
    Step.objects.filter(run=run, name=name).update(**values)
    return Step.objects.get(run=run, name=name)


def test_an_update_has_the_changed_lines_alone(run: Run, admin_client: Client) -> None:
    watcher = Watcher(admin_client, run)
    assert watcher.ask().status_code == 204
    step = end(run, "step 61")
    response = watcher.ask()
    assert response.status_code == 200
    assert "HX-Reswap" not in response
    assert swaps(response) == {
        "durable-poll": "true",
        "durable-progress": "innerHTML",
        "durable-head": "true",
        "durable-chips": "true",
        "durable-axis": "true",
        row_of(step): "true",
    }
    assert "61 steps done" in response.content.decode()
    assert "<html" not in response.content.decode()


def test_new_lines_come_after_the_line_before_them(
    run: Run, admin_client: Client
) -> None:
    watcher = Watcher(admin_client, run)
    before = Step.objects.get(run=run, name="step 62")
    key = ids.step_key("new")
    new = Step.objects.create(
        id=ids.step_pk(run.pk, key),
        run=run,
        key=key,
        name="new",
        kind="run",
        position=63,
        status="running",
        started_at=clock.now(),
    )
    found = swaps(watcher.ask())
    assert found[row_of(new)] == f"afterend:#{row_of(before)}"


def test_lines_that_are_folded_now_are_deleted(run: Run, admin_client: Client) -> None:
    Step.objects.filter(run=run, name="step 30").update(status="running", ended_at=None)
    watcher = Watcher(admin_client, run)
    assert run.started_at is not None
    step = end(run, "step 30", ended_at=run.started_at + timedelta(milliseconds=1))
    found = swaps(watcher.ask())
    assert found[row_of(step)] == "delete"
    assert [how for ref, how in found.items() if ref.startswith("row-fold")]


@pytest.mark.parametrize("lines", [[], ["function.00000000"], ["x"], ["a.b~"]])
def test_a_page_of_unknown_lines_gets_all_of_them(
    run: Run, admin_client: Client, lines: list[str]
) -> None:
    watcher = Watcher(admin_client, run)
    end(run, "step 61")
    response = watcher.ask(lines)
    assert response.status_code == 200
    if lines != ["function.00000000"]:
        assert response["HX-Reswap"] == "outerHTML"
        assert b'id="durable-live"' in response.content


def test_lines_in_another_order_are_sent_again(run: Run, admin_client: Client) -> None:
    watcher = Watcher(admin_client, run, "?steps=slowest")
    lines = watcher.lines
    end(run, "step 61")
    response = watcher.ask([lines[0], *reversed(lines[1:])])
    assert response["HX-Reswap"] == "outerHTML"


def test_a_poll_keeps_the_filter_of_the_page(run: Run, admin_client: Client) -> None:
    watcher = Watcher(admin_client, run, "?steps=running&name=step")
    assert watcher.poll.startswith("?steps=running&name=step&seen=")
    step = end(run, "step 61")
    assert swaps(watcher.ask())[row_of(step)] == "delete"


def test_the_end_of_a_run_sends_all_of_it_and_stops(
    run: Run, admin_client: Client
) -> None:
    watcher = Watcher(admin_client, run)
    Step.objects.filter(run=run, ended_at=None).update(
        status="completed", ended_at=clock.now()
    )
    Run.objects.update(status="completed", ended_at=clock.now(), output='{"n": 1}')
    response = watcher.ask()
    assert response.status_code == STOP_POLLING
    assert response["HX-Reswap"] == "outerHTML"
    assert b'id="durable-live"' in response.content
    assert b"data-durable-live" not in response.content


def test_child_runs_are_sent_when_they_change(run: Run, admin_client: Client) -> None:
    watcher = Watcher(admin_client, run)
    (child,) = make_runs(1, parent_id=run.pk, parent_step="x")
    end(run, "step 61")
    response = watcher.ask()
    assert swaps(response)["durable-children"] == "true"
    assert page_of(child) in response.content.decode()


def test_each_link_of_a_live_timeline_has_an_id(run: Run, admin_client: Client) -> None:
    source = Watcher(admin_client, run).page.source
    section = source[source.index('id="durable-timeline"') :]
    links = [
        a for t, a in Page(section[: section.index("</section>")]).tags if t == "a"
    ]
    assert len(links) > 20
    ids_of = [link.get("id") for link in links]
    assert None not in ids_of
    assert len(set(ids_of)) == len(ids_of)


def test_the_progress_counts_the_branches_of_a_map(
    admin_client: Client, durable_kit: Kit
) -> None:
    @durable.function(id="tests.branches")
    def branches(ctx):
        ctx.step.map(
            "each", lambda n: n % 2 and ctx.step.sleep("nap", f"{n}h"), range(30)
        )

    run = branches.enqueue()
    durable_kit.run_until_idle()
    watcher = Watcher(admin_client, run)
    durable_kit.advance("1h")
    text = watcher.ask().content.decode()
    assert "16 of 30 branches done" in text
    assert len(text) <= LARGEST


def test_an_update_of_300_branches_is_small(admin_client: Client) -> None:
    now = clock.now()
    run = make_runs(1, status="running", ended_at=None, started_at=now)[0]
    rows = [_step(run, "each", "map", "", 0, detail={"size": 300})]
    for number in range(300):
        rows.append(_step(run, f"{number}", "branch", rows[0].key, 2 * number + 1))
        rows.append(_step(run, "charge", "run", rows[-1].key, 2 * number + 2))
    Step.objects.bulk_create(rows)
    done = Step.objects.filter(run=run, position__gt=0)
    done.filter(position__lte=200).update(status="completed", ended_at=now)
    watcher = Watcher(admin_client, run)
    done.filter(position__range=(201, 212)).update(status="completed", ended_at=now)
    response = watcher.ask()
    assert "106 of 300 branches done" in response.content.decode()
    assert len(response.content) <= LARGEST
    assert len(watcher.page.source) < 60_000


def _step(run: Run, name: str, kind: str, parent: str, position: int, **values) -> Step:
    key = ids.step_key(name, parent)
    return Step(
        id=ids.step_pk(run.pk, key),
        run=run,
        key=key,
        name=name,
        kind=kind,
        parent_id=ids.step_pk(run.pk, parent) if parent else None,
        position=position,
        status="running",
        started_at=run.started_at,
        **values,
    )


def test_lines_of_a_page_are_read_as_they_were_sent() -> None:
    assert timeline_update.parse("function.0123abcd~a1.00000000") == {
        "function": "0123abcd",
        "a1": "00000000",
    }
    assert timeline_update.parse("<b>.0123abcd~x~a.1~~.~A.0123abcd") == {}
