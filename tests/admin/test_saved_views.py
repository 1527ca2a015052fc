"""Saved filters: private and shared."""

from __future__ import annotations

import pytest
from django.urls import reverse

from durable_jobs.admin import saved_views
from durable_jobs.models import SavedView
from tests.admin.conftest import Page, list_of

pytestmark = pytest.mark.django_db

VIEWS = reverse("admin:durable_jobs_saved_views")


def save(client, name="failing", query="status=failed", **more):
    return client.post(VIEWS, {"name": name, "query": query, **more}, follow=True)


def shown(client, query=""):
    page = Page(client.get(list_of("run") + query).content.decode())
    return page.source.partition('class="durable-views"')[2].partition("</ul>")[0]


def test_filter_is_saved_under_a_name_and_led_to(operator):
    client = operator("view_run")
    page = Page(client.get(f"{list_of('run')}?status=failed&queue=a").content.decode())
    query = next(a["value"] for _, a in page.tags if a.get("name") == "query")
    assert query == "queue=a&status=failed"
    response = save(client, query=query)
    assert response.redirect_chain == [(f"{list_of('run')}?{query}", 302)]
    assert "The view “failing” was saved." in response.content.decode()
    assert 'href="?queue=a&amp;status=failed"' in shown(client)
    assert 'aria-current="page"' not in shown(client)
    assert 'aria-current="page"' in shown(client, "?status=failed&queue=a")


def test_view_with_an_existing_name_replaces_it(operator):
    client = operator("view_run")
    save(client)
    save(client, query="status=queued", shared="on")
    view = SavedView.objects.get()
    assert (view.query, view.shared) == ("status=queued", True)


def delete(client, key):
    return client.post(VIEWS, {"delete": key}, follow=True).content.decode()


def test_shared_views_are_visible_to_all_and_deleted_by_their_owners(operator):
    ann = operator("view_run", username="ann")
    bob = operator("view_run", username="bob")
    save(ann, "mine")
    save(ann, "ours", shared="on")
    assert "mine" in shown(ann)
    seen = shown(bob)
    assert "ours" in seen
    assert "mine" not in seen
    assert 'name="delete"' not in seen
    key = SavedView.objects.get(name="ours").pk
    assert "This saved view no longer exists" in delete(bob, key)
    assert SavedView.objects.count() == 2
    assert "was deleted" in delete(ann, key)
    assert "This saved view no longer exists" in delete(ann, key)
    assert SavedView.objects.get().name == "mine"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"name": ""}, "Expected a name of 1 to 100"),
        ({"name": "x" * 101}, "Expected a name of 1 to 100"),
        ({"name": "a\x00b"}, "Expected a name of 1 to 100"),
        ({"query": "nonsense=1"}, "Unknown filter"),
        ({"query": "status=bad"}, "Expected a status among"),
        ({"query": "javascript:alert(1)"}, "Unknown filter"),
    ],
)
def test_invalid_view_is_a_message(operator, sent, told):
    response = save(operator("view_run"), **sent)
    assert response.status_code == 200
    assert told in response.content.decode()
    assert not SavedView.objects.exists()


@pytest.mark.parametrize("key", ["", "x", "-1", "9" * 30, "٣", "\x00"])
def test_missing_view_is_a_message(operator, key):
    assert "This saved view no longer exists" in delete(operator("view_run"), key)


def test_views_of_a_user_are_limited(operator, monkeypatch):
    monkeypatch.setattr(saved_views, "MOST", 2)
    client = operator("view_run")
    for name in ("a", "b", "c"):
        response = save(client, name)
    assert "You have the maximum of 2 saved views" in response.content.decode()
    assert SavedView.objects.count() == 2
    save(client, "b", query="status=queued")
    assert SavedView.objects.get(name="b").query == "status=queued"


def test_name_is_shown_as_text(operator):
    client = operator("view_run")
    save(client, "<script>x</script>")
    text = client.get(list_of("run")).content.decode()
    assert "<script>x" not in text
    assert "&lt;script&gt;x" in text


def test_saving_needs_the_permission_to_view_runs_and_a_form(client, operator):
    assert client.post(VIEWS, {"name": "x"}).status_code == 302
    assert operator("cancel_run").post(VIEWS, {"name": "x"}).status_code == 403
    viewer = operator("view_run", username="viewer")
    assert viewer.get(VIEWS).status_code == 405
    viewer.handler.enforce_csrf_checks = True
    assert viewer.post(VIEWS, {"name": "x"}).status_code == 403
    assert not SavedView.objects.exists()
