"""The pages of limits and of pauses."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User

from durable_jobs import durable
from durable_jobs.models import Limit, Run
from tests.admin.conftest import list_of, page_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def limit_row(durable_kit) -> Limit:
    """Let one run hold the only slot of a tenant, and another one wait for it."""

    @durable.function(
        id="tests.napper",
        concurrency=durable.Concurrency(
            1, key=lambda event: event.data["tenant"], of="runs"
        ),
    )
    def napper(ctx):
        ctx.step.sleep("nap", "1h")

    for _ in range(3):
        napper.enqueue({"tenant": "t7"})
    durable_kit.run_until_idle()
    return Limit.objects.get(key='"t7"')


def test_limit_shows_its_key_and_its_use(limit_row, get):
    page = get(list_of("limit"))
    assert "tests.napper" in page.text
    assert "t7" in page.text
    page = get(page_of(limit_row))
    assert "tests.napper" in page.text


def test_queued_run_shows_what_it_waits_for(limit_row, get):
    holder = Run.objects.get(status="waiting")
    queued = Run.objects.filter(status="queued").order_by("run_order").first()
    page = get(page_of(queued))
    assert "concurrency 1 for key" in page.text
    assert page_of(holder) in page.source


def test_raised_limit_promotes_backlogged_runs(limit_row, client, durable_kit):
    operator = User.objects.create_user("ann", is_staff=True)
    wanted = Permission.objects.filter(codename__in=["view_limit", "change_limit"])
    operator.user_permissions.set(wanted)
    client.force_login(operator)
    response = client.post(page_of(limit_row), {"override": "2"})
    assert response.status_code == 302
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="waiting").count() == 2
    assert Run.objects.filter(status="queued").count() == 1


def test_viewer_cannot_set_a_limit(limit_row, viewer, durable_kit):
    client = viewer("limit")
    assert client.get(page_of(limit_row)).status_code == 200
    assert client.post(page_of(limit_row), {"override": "9"}).status_code == 403
    limit_row.refresh_from_db()
    assert limit_row.override is None


def test_pauses_are_listed_with_their_reasons(limit_row, get):
    Run.objects.filter(status="waiting").first()
    durable.pause_queue("default", "the bank is closed")
    assert "the bank is closed" in get(list_of("pause")).text
