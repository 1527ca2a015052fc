"""A project's page shows the progress of a run and updates it by a token."""

from __future__ import annotations

import json
import re
import uuid
from html import unescape

import pytest
from django.core import signing
from django.db import connection
from django.template import Context, Template
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.progress.tokens import LAST_POLL, SALT, ProgressView
from project.shop.models import Order, Tenant
from tests.admin.conftest import make_runs, make_steps

pytestmark = pytest.mark.django_db

HTMX = {"HTTP_HX_REQUEST": "true"}


def tag(run, options=""):
    source = "{% load durable_jobs %}{% durable_progress run " + options + " %}"
    return Template(source).render(Context({"run": run}))


def addresses(html):
    """Return the addresses of the JSON and of the fragment itself."""
    [data] = re.findall(r'data-json="([^"]+)"', html)
    [piece] = re.findall(r'hx-get="([^"]+)"', html)
    return unescape(data), unescape(piece)


def data_of(run, **options):
    address = reverse(
        "durable_jobs:progress", args=[ProgressView(run.pk, **options).token()]
    )
    return Client().get(address)


def words(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


@pytest.fixture
def ship(durable_kit):
    @durable.function(id="tests.ship")
    def ship(ctx):
        ctx.step.run("pack", lambda: "a secret of the box")
        with ctx.step.group("truck"):
            ctx.step.sleep("drive", "1h")
        ctx.step.run("hand over", lambda: None)
        return "done"

    return ship


@pytest.fixture
def live():
    """Insert a run that waits in its second step."""
    [run] = make_runs(1, status="waiting", ended_at=None, output=None)
    make_steps(run, 2)
    last = run.steps.order_by("position").last()
    last.status, last.ended_at, last.output = "sleeping", None, None
    last.save()
    return run


def test_page_shows_how_far_a_run_is(durable_kit, ship):
    run = ship.enqueue({"card": "4111"})
    assert "Queued" in words(tag(run))
    durable_kit.run_until_idle()
    shown = words(tag(run, "total=3"))
    assert "Waiting: drive" in shown
    assert "1 of 3 steps done" in shown
    durable_kit.advance("1h")
    html = tag(run, "total=3")
    assert "Completed" in words(html)
    assert "3 of 3 steps done" in words(html)
    assert "hx-get" not in html


def test_progress_is_text_and_a_bar_for_screen_readers(live):
    html = tag(live, "total=4")
    assert 'role="status"' in html
    assert 'aria-label="Progress" max="4" value="1"' in html
    assert ">1 of 4 steps done</progress>" in html
    plain = tag(live)
    assert "max=" not in plain
    assert "1 step done" in words(plain)


def test_progress_shows_no_payload(durable_kit, ship):
    run = ship.enqueue({"card": "4111"})
    durable_kit.run_until_idle()
    html = tag(run)
    data, piece = addresses(html)
    for text in (html, Client().get(data).content, Client().get(piece).content):
        found = text if isinstance(text, str) else text.decode()
        for secret in ("4111", "a secret", "tests.ship", "truck"):
            assert secret not in found


def test_names_can_be_left_out(live):
    html = tag(live, "names=False")
    assert "step 1" not in html
    data, piece = addresses(html)
    assert "current" not in Client().get(data).json()
    assert "step 1" not in Client().get(piece).content.decode()


def test_json_has_the_same_content(live):
    data, _ = addresses(tag(live, "total=4"))
    answer = Client().get(data)
    assert answer.json() == {
        "status": "waiting",
        "label": "Waiting",
        "ended": False,
        "done": 1,
        "failed": 0,
        "total": 4,
        "current": ["step 1"],
        "version": "waiting-1-0-1",
    }
    assert "no-store" in answer["Cache-Control"]


def test_unchanged_progress_costs_two_queries_and_no_bytes(live):
    data, piece = addresses(tag(live))
    seen = Client().get(data).json()["version"]
    for address in (data, piece):
        with CaptureQueriesContext(connection) as captured:
            answer = Client().get(address, {"seen": seen}, **HTMX)
        assert answer.status_code == 204
        assert answer.content == b""
        assert len(captured) == 2
        assert "no-store" in answer["Cache-Control"]


def test_changed_progress_is_shown(live):
    data, piece = addresses(tag(live))
    seen = Client().get(data).json()["version"]
    live.steps.update(status="completed")
    answer = Client().get(piece, {"seen": seen}, **HTMX)
    assert answer.status_code == 200
    assert "2 steps done" in words(answer.content.decode())
    assert 'value="waiting-2-0-0"' in answer.content.decode()


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "skipped"])
def test_polling_stops_at_the_end(live, status):
    data, piece = addresses(tag(live))
    Run.objects.filter(pk=live.pk).update(status=status, ended_at=live.queued_at)
    seen = Client().get(data).json()["version"]
    answer = Client().get(piece, {"seen": seen}, **HTMX)
    assert answer.status_code == 286
    assert status.capitalize() in answer.content.decode()
    assert Client().get(data, {"seen": seen}).json()["ended"] is True


def test_failures_are_counted(live):
    live.steps.filter(position=0).update(status="failed")
    assert "1 step done, 1 failed" in words(tag(live))


def test_total_grows_with_more_steps_than_expected(live):
    make_steps_of = live.steps
    make_steps_of.update(status="completed")
    assert 'max="2" value="2"' in tag(live, "total=1")


def test_steps_name_is_escaped(live):
    live.steps.update(name="<script>alert(1)</script>")
    html = tag(live)
    _, piece = addresses(html)
    for text in (html, Client().get(piece).content.decode()):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


@pytest.mark.parametrize("wrong", ["x", "a:b:c", "é", "%00", "x" * 3000])
def test_invalid_token_is_answered_as_an_expired_one(live, settings, wrong):
    data, piece = addresses(tag(live))
    settings.DURABLE_JOBS = {"PROGRESS_TOKEN_MAX_AGE": "1ms"}
    over = [Client().get(address) for address in (data, piece)]
    none = [
        Client().get(f"/durable/progress/{wrong}/"),
        Client().get(f"/durable/progress/{wrong}/fragment/"),
    ]
    assert {answer.status_code for answer in over + none} == {404}
    assert len({answer.content for answer in over + none}) == 1
    assert all("no-store" in answer["Cache-Control"] for answer in over + none)


def test_changed_and_foreign_tokens_are_refused(live):
    token = ProgressView(live.pk).token()
    other = signing.TimestampSigner(salt="other").sign_object([live.pk.hex, 1, None])
    odd = [
        signing.TimestampSigner(salt=SALT).sign_object(parts)
        for parts in ([], ["x", 1, None], [7, 1, None], {"a": 1}, "text", None)
    ]
    for wrong in (token[:-1], "A" + token, token.replace(":", "."), other, *odd):
        address = reverse("durable_jobs:progress", args=[wrong])
        assert Client().get(address).status_code == 404


def test_deleted_run_is_answered_as_an_expired_token(live):
    data, _ = addresses(tag(live))
    live.delete()
    assert Client().get(data).status_code == 404
    assert data_of(Run(pk=uuid.uuid4())).status_code == 404


def test_page_stops_polling_before_its_token_expires(live, settings):
    data, piece = addresses(tag(live))
    seen = Client().get(data).json()["version"]
    settings.DURABLE_JOBS = {"PROGRESS_TOKEN_MAX_AGE": LAST_POLL}
    answer = Client().get(piece, {"seen": seen}, **HTMX)
    assert answer.status_code == 286
    assert "Waiting" in answer.content.decode()


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_progress_is_read_only(live, method):
    for address in addresses(tag(live)):
        assert getattr(Client(), method)(address).status_code == 405


def test_missing_run_shows_nothing():
    assert tag(None).strip() == ""
    assert tag(uuid.uuid4()).strip() == ""


def test_run_is_given_by_its_id_too(live):
    assert "Waiting" in tag(str(live.pk))
    assert "Waiting" in tag(live.pk)


def test_progress_without_the_apps_addresses_is_shown_once(live, settings):
    settings.ROOT_URLCONF = "tests.progress.nothing"
    html = tag(live)
    assert "Waiting" in html
    assert "hx-get" not in html


def test_token_is_for_one_run_only(live):
    [other] = make_runs(1)
    token = ProgressView(live.pk).token()
    forged = json.dumps([other.pk.hex, 1, None])
    encoded = signing.b64_encode(forged.encode()).decode()
    rest = token.partition(":")[2]
    address = reverse("durable_jobs:progress", args=[f"{encoded}:{rest}"])
    assert Client().get(address).status_code == 404


def test_shop_shows_progress_to_a_tenant_without_a_login(durable_kit):
    tenant = Tenant.objects.create(name="Acme")
    order = Order.objects.create(tenant=tenant, total=40)
    address = reverse("order", args=[order.pk])
    assert "durable-progress" not in Client().get(address).content.decode()
    from project.shop.durable import refund_order

    refund_order.enqueue(
        {"model": "shop.Order", "pk": order.pk, "amount": 5, "reason": "late"}
    )
    page = Client().get(address).content.decode()
    assert "0 of 2 steps done" in words(page)
    durable_kit.run_until_idle()
    assert Client().get(addresses(page)[1]).status_code == 286
    assert "2 of 2 steps done" in words(Client().get(address).content.decode())
