"""Examples of docs/how-to/flow-control/index.md."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from project.shop.models import Tenant
from tests.docs.examples import section


@section("Combine controls")
def test_together(run_example, kit):
    run_example()
    for number in (1, 2, 2, 3):
        durable.send(
            "shop/photo.uploaded", {"photo": f"p{number}", "tenant": 7, "plan": "free"}
        )
    kit.run_until_idle()
    assert sorted(run.output for run in Run.objects.all()) == ["P1", "P2", "P3"]


@section("Invalid combinations")
def test_what_cannot_be_combined(run_example, shop):
    run_example()
    assert (
        shop.message
        == "Durable function 'shop.neither': Expected batch or debounce, not both."
    )


@section("Keys")
def test_keys(run_example, shop, kit):
    run_example()
    durable.send("shop/report.wanted", {})
    durable.send("shop/report.wanted", {"tenant": None})
    kit.run_until_idle()
    skipped, done = Run.objects.order_by("pk")
    assert skipped.status == "skipped"
    assert "A key of its flow control failed" in skipped.reason
    assert "KeyError" in skipped.reason
    assert done.output == "report for None"
    with pytest.raises(durable.ExpressionError):
        shop.report.enqueue({})


@section("Limits from your own data")
def test_limits_from_your_own_data(run_example, shop, kit):
    run_example()
    acme = Tenant.objects.get_or_create(name="Acme")[0]
    other = Tenant.objects.create(name="Other")
    for tenant in (acme, other):
        for _ in range(3):
            shop.export.enqueue({"tenant_id": tenant.pk})
    kit.run_until_idle()
    waiting = [run.data["tenant_id"] for run in Run.objects.filter(status="waiting")]
    assert sorted(waiting) == [acme.pk] * 3 + [other.pk]
    other.name = "Acme & Co"
    other.save()
    kit.advance("30s")
    assert Run.objects.filter(status="waiting").count() == 6
    unknown = shop.export.enqueue({"tenant_id": 0})
    kit.run_until_idle()
    assert unknown.explain().state == "blocked"
    assert "DoesNotExist" in str(unknown.explain())


@section("Pause, resume, drain")
def test_pause_resume_drain(run_example, shop, kit):
    run_example()
    shop.unpaid("acme")
    durable.send("shop/mail.wanted", {"tenant": "acme"})
    kit.run_until_idle()
    shop.maintenance()
    durable.send("shop/mail.wanted", {"tenant": "globex"})
    kit.run_until_idle()
    skipped, kept = Run.objects.order_by("pk")
    assert (kept.status, str(kept.explain())) == (
        "queued",
        "shop.send_mail is paused: the mail server is moved",
    )
    shop.send_mail.resume()
    kit.run_until_idle()
    kept.refresh_from_db()
    assert skipped.status == "skipped"
    assert skipped.reason == 'key "acme" of shop.send_mail was paused: unpaid'
    assert kept.result() == "globex"
    assert shop.send_mail.resume(key="acme")
    assert not shop.send_mail.resume(key="acme")
    durable.pause_queue("default", "a new database")
    durable.send("shop/mail.wanted", {"tenant": "acme"})
    kit.run_until_idle()
    last = Run.objects.latest("pk")
    assert last.status == "queued"
    durable.resume_queue("default")
    kit.run_until_idle()
    last.refresh_from_db()
    assert last.status == "completed"
    run_example()
    for _ in range(2):
        shop.index.enqueue()
        kit.run_until_idle()
        shop.index.pause()
    assert not shop.drained()
    kit.advance("1h")
    assert shop.drained()
    assert Run.objects.filter(status="queued").count() == 1
    durable.send("shop/mail.wanted", {"tenant": "acme"})
    kit.run_until_idle()


@section("Explain a waiting run")
def test_why_is_it_waiting(run_example, shop, kit):
    run_example()
    first, _, third = [shop.close_books.enqueue() for _ in range(3)]
    kit.run_until_idle()
    assert shop.why(third) == (
        f"concurrency 1 of shop.close_books is reached: held by {first.pk}; "
        "1 other is before it."
    )
    found = third.explain()
    assert (found.state, found.control, found.limit) == ("blocked", "concurrency", 1)
    assert (found.holders, found.ahead) == ([str(first.pk)], 1)
    first.refresh_from_db()
    until = (kit.now() + timedelta(hours=1)).isoformat()
    text = f"The run is waiting. Sleeping in 'pause' until {until}."
    assert str(first.explain()) == text


@section("Dead letters")
def test_dead_letters(run_example, shop, kit):
    run_example()
    for _ in range(4):
        shop.publish.enqueue()
    kit.run_until_idle()
    shop.works = True
    assert shop.again() == 4
    kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 2
    kit.advance("1s")
    assert Run.objects.filter(status="completed").count() == 3
    kit.advance("1s")
    assert Run.objects.filter(status="completed").count() == 4
