"""A busy shop for screenshots: runs of all kinds, and their history."""

from __future__ import annotations

import logging
import random
from datetime import timedelta

from django.contrib.contenttypes.models import ContentType

from durable_jobs import clock, durable
from durable_jobs.maintenance import run_stats
from durable_jobs.models import Pause, Run, RunStats, Worker
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.admin.conftest import make_runs

logger = logging.getLogger("project.shop.payments")

FUNCTIONS = {
    "shop.fulfil_order": (900, 0.004),
    "shop.send_receipt": (640, 0.0),
    "shop.sync_inventory": (288, 0.05),
    "shop.import_airports": (24, 0.0),
    "shop.nightly_report": (6, 0.17),
}


def past(seed: int = 7) -> None:
    """Insert the statistics of a week, busy by day."""
    chance = random.Random(seed)  # noqa: S311  # a picture, no secret
    end, rows = run_stats.begin_of(clock.now()), []
    for number in range(1, 7 * 24 * 12):
        since = end - number * RunStats.LENGTH
        busy = 0.25 + max(0.0, 1 - abs(since.hour - 14) / 8)
        total = 0
        for function, (rate, bad) in FUNCTIONS.items():
            count = int(rate / 12 * busy * chance.uniform(0.6, 1.4))
            failed = sum(chance.random() < bad for _ in range(count))
            total += count
            for status, n in (("completed", count - failed), ("failed", failed)):
                if n:
                    rows.append(
                        RunStats(since=since, function=function, status=status, count=n)
                    )
        rows.append(RunStats(since=since, count=total))
    RunStats.objects.bulk_create(rows)


def shop(kit: Kit) -> Run:
    """Let the shop work, and return an order's run that waits for a review."""
    ContentType.objects.clear_cache()
    tenant = Tenant.objects.create(name="Blue Door")
    tries = iter([ConnectionError("gateway.example.com: connection reset by peer")] * 2)

    def charge(order: int) -> dict[str, str]:
        logger.info("charge order %d: EUR 49.90 by card ending in 4242", order)
        error = next(tries, None)
        if error:
            logger.warning("POST https://gateway.example.com/v1/charges: %s", error)
            raise error
        logger.info("order %d is charged: ch_%d", order, order)
        kit.travel_to(kit.now() + timedelta(seconds=1.6), run=False)
        return {"id": f"ch_{order}", "amount": "49.90", "currency": "EUR"}

    def work(seconds: float):
        def body(*args) -> None:
            kit.travel_to(kit.now() + timedelta(seconds=seconds), run=False)

        return body

    @durable.function(
        id="shop.fulfil", on=durable.ModelChange("shop.Order", created=True), retries=4
    )
    def fulfil(ctx):
        order = ctx.event.data["pk"]
        ctx.step.run("reserve", work(2.4))
        ctx.step.run("charge", charge, order, backoff=durable.Backoff.fixed("6s"))
        with ctx.step.group("pack"):
            for item in ("pick", "label", "seal"):
                ctx.step.run(item, work(3.1))
        ctx.step.sleep("cool-off", "20s")
        ctx.step.wait_for_event(
            "review", "shop/order.reviewed", match="data.pk", timeout="7d"
        )

    @durable.function(id="shop.sync_inventory", retries=0)
    def sync(ctx):
        ctx.step.run("pull", work(0.4))
        if ctx.event.data["n"] % 4 == 0:
            raise TimeoutError(
                f"warehouse {ctx.event.data['n'] % 3}: no answer in 30 s"
            )

    @durable.function(id="shop.send_receipt")
    def receipt(ctx):
        ctx.step.run("render", work(0.2))
        ctx.step.run("mail", work(0.5))

    order = Order.objects.create(tenant=tenant, total=4990)
    kit.run_until_idle()
    for amount in ("40", "99"):
        kit.send("shop/complaint.received", {"order": order, "amount": amount})
    kit.advance("60s")
    for n in range(24):
        sync.enqueue({"n": n})
        receipt.enqueue({"order": n})
    kit.run_until_idle()
    make_runs(
        3,
        function="shop.import_airports",
        status="queued",
        ended_at=None,
        started_at=None,
    )
    now = kit.now()
    for name in ("celery@web-1:811", "celery@web-2:902"):
        Worker.objects.create(name=name, kind="worker", seen_at=now, started_at=now)
    Worker.objects.update_or_create(
        name="tick", defaults={"kind": "beat", "seen_at": now, "started_at": now}
    )
    Pause.objects.create(
        kind="function",
        name="shop.nightly_report",
        reason="figures are being corrected",
        paused_at=now,
    )
    run = Run.objects.filter(function="shop.fulfil").get()
    assert run.subjects.filter(object_pk=str(order.pk)).exists()
    return run
