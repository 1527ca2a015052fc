"""Markup in a text of users, code or errors is escaped on every page.

The pages need no exception from a strict content security policy.
"""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import clock, ids
from durable_jobs.models import (
    Event,
    FailedAttempt,
    Run,
    Schedule,
    Step,
    Subject,
    Wait,
    WaitKind,
    Worker,
)
from tests.admin.conftest import MODELS, list_of, make_runs, page_of

pytestmark = pytest.mark.django_db

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7|add:7 }}</pre>"
SHORT = '"><b onclick=x>'
ERROR = {"type": EVIL, "message": EVIL, "traceback": EVIL, EVIL: EVIL}
LINE = {"level": EVIL, "logger": EVIL, "message": EVIL}
LOGS = {"lines": [{"at": "2026-01-01T09:00:00+00:00", **LINE}], "left_out": 1}


@pytest.fixture
def rows():
    now = clock.now()
    payload: Any = {EVIL: [EVIL, {"$x": EVIL}]}
    event = Event.objects.create(
        id=EVIL,
        name=EVIL,
        data=payload,
        user=payload,
        v=EVIL,
        source=EVIL[:50],
        ts=now,
        received_at=now,
    )
    parent = make_runs(1, function=EVIL)[0]
    run = make_runs(
        1,
        function=EVIL,
        version=EVIL,
        reason=EVIL,
        trigger=EVIL,
        key=EVIL,
        event_id=event.pk,
        data=payload,
        output=payload,
        error=ERROR,
        event_meta={EVIL: EVIL},
        parent_id=parent.pk,
        parent_relation=SHORT[:10],
        queue=EVIL,
        worker=EVIL,
        status="failed",
    )[0]
    key = ids.step_key(EVIL)
    step = Step.objects.create(
        id=ids.step_pk(run.pk, key),
        run=run,
        key=key,
        name=EVIL,
        kind=SHORT,
        status="failed",
        attempt=1,
        input={"args": [payload], EVIL: EVIL},
        output=payload,
        error=ERROR,
        detail=payload,
        logs=LOGS,
        started_at=now,
        ended_at=now,
    )
    make_runs(
        1, function=EVIL, parent_id=run.pk, parent_step=key, parent_relation=SHORT[:10]
    )
    Subject.objects.create(run=run, model=EVIL, object_pk=EVIL)
    Subject.objects.create(run=run, model="shop.order", object_pk=EVIL)
    for place in ("", key):
        FailedAttempt.objects.create(
            run=run, step=place, number=0, error=ERROR, logs=LOGS, ended_at=now
        )
        for kind in WaitKind:
            Wait.objects.create(
                run=run,
                step=place,
                kind=kind,
                name=f"{EVIL}{place}",
                match=EVIL,
                branch=EVIL,
                created_at=now,
                due_at=None,
            )
    return {
        "event": event,
        "run": run,
        "step": step,
        "schedule": Schedule.objects.create(
            function=EVIL,
            name=EVIL,
            cron=EVIL,
            tz=SHORT,
            owner_model=SHORT,
            owner_pk=EVIL,
            reason=EVIL,
            next_occurrence=now,
            due_at=now,
            last_fired_at=now,
        ),
        "worker": Worker.objects.create(
            name=EVIL, kind=SHORT[:10], seen_at=now, started_at=now
        ),
    }


def check(page):
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), attributes
        assert "style" not in attributes, attributes
        assert tag != "style"
        assert tag != "b" or not attributes
        assert tag != "img" or attributes["src"] != "x"
        if tag == "script":
            inert = attributes.get("type") == "application/json"
            assert inert or str(attributes["src"]).startswith("/"), attributes
        address = attributes.get("href") or attributes.get("action") or ""
        assert not address.lower().strip().startswith(("javascript:", "data:"))
    assert "1414" not in page.text
    assert "{{ 7|add:7 }}" in page.text


@pytest.mark.parametrize("model", MODELS)
def test_markup_is_text_in_lists(get, rows, model):
    check(get(list_of(model)))


@pytest.mark.parametrize("model", MODELS)
def test_markup_is_text_on_pages(get, rows, model):
    address = page_of(rows[model])
    if model in ("event", "worker"):
        from django.contrib.admin.utils import quote

        address = f"{list_of(model)}{quote(rows[model].pk)}/change/"
    check(get(address))


def test_markup_in_an_address_is_escaped(get, rows):
    from urllib.parse import quote

    for query in (
        f"function={quote(EVIL)}",
        f"event={quote(EVIL)}",
        f"q={quote(EVIL)}",
    ):
        check(get(f"{list_of('run')}?{query}"))


def test_markup_is_text_in_history(get, rows):
    page = get(page_of(rows["run"]).replace("/change/", "/history/"))
    assert "<script>alert(1)" not in page.source
    assert Run.objects.count() == 3
