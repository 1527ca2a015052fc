"""Permissions to view, and that no user may change rows."""

from __future__ import annotations

import pytest
from django.test import Client

from durable_jobs import clock
from durable_jobs.models import Schedule, Worker
from tests.admin.conftest import (
    MODELS,
    Page,
    list_of,
    make_events,
    make_runs,
    make_steps,
    page_of,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def rows():
    now = clock.now()
    event = make_events(1)[0]
    run = make_runs(1, event_id=event.pk)[0]
    return {
        "event": event,
        "run": run,
        "step": make_steps(run, 1)[0],
        "schedule": Schedule.objects.create(
            function="tests.made",
            cron="0 9 * * *",
            tz="UTC",
            next_occurrence=now,
            due_at=now,
        ),
        "worker": Worker.objects.create(
            name="beat", kind="beat", seen_at=now, started_at=now
        ),
    }


@pytest.mark.parametrize("model", MODELS)
def test_strangers_are_sent_to_the_login(client, rows, model):
    for address in (list_of(model), page_of(rows[model])):
        response = client.get(address)
        assert response.status_code == 302
        assert "/login/" in response["Location"]


@pytest.mark.parametrize("model", MODELS)
def test_staff_without_the_permission_are_refused(viewer, rows, model):
    others = [name for name in MODELS if name != model]
    client = viewer(*others)
    assert client.get(list_of(model)).status_code == 403
    assert client.get(page_of(rows[model])).status_code == 403


@pytest.mark.parametrize("model", MODELS)
def test_staff_with_the_permission_see_lists_and_pages(viewer, rows, model):
    client = viewer(model)
    assert client.get(list_of(model)).status_code == 200
    assert client.get(page_of(rows[model])).status_code == 200


@pytest.mark.parametrize("model", MODELS)
def test_non_staff_user_sees_nothing_with_any_permission(viewer, rows, model):
    client = viewer(model, staff=False)
    assert client.get(list_of(model)).status_code == 302


@pytest.mark.parametrize("model", MODELS)
def test_rows_cannot_be_added_changed_or_deleted(admin_client: Client, rows, model):
    page = page_of(rows[model])
    assert admin_client.get(f"{list_of(model)}add/").status_code == 403
    assert admin_client.post(page, {"status": "queued"}).status_code == 403
    delete = page.replace("/change/", "/delete/")
    assert admin_client.get(delete).status_code == 403
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [rows[model].pk]}
    admin_client.post(list_of(model), chosen)
    assert type(rows[model]).objects.filter(pk=rows[model].pk).exists()


def test_page_links_only_to_what_its_viewer_may_see(viewer, rows):
    page = Page(viewer("run").get(page_of(rows["run"])).content.decode())
    assert "step 0" in page.text
    assert not page.links("/step/")
    assert not page.links("/event/")


def test_page_links_to_all_that_its_viewer_may_see(viewer, rows):
    page = Page(
        viewer("run", "step", "event").get(page_of(rows["run"])).content.decode()
    )
    assert page_of(rows["step"]) in page.links()
    assert page_of(rows["event"]) in page.links()


def test_list_of_steps_links_to_runs_for_viewers_who_may_see_them(viewer, rows):
    page = Page(viewer("step").get(list_of("step")).content.decode())
    assert "tests.made" in page.text
    assert not page.links("/run/")
