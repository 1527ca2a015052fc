"""Examples of docs/how-to/from-celery.md."""

from __future__ import annotations

import ast
import importlib
from datetime import UTC, datetime

import pytest

from durable_jobs.models import Run
from tests.docs.examples import an_order, section
from tests.docs.pages import page

PAGE = page("docs/how-to/from-celery.md")
CELERY = [block.text for block in PAGE.blocks if block.language == "py"]


@pytest.mark.parametrize("text", CELERY)
def test_celery_examples_import_what_celery_has(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)


@section("A task")
def test_a_task_starts_with_its_transaction(run_example, shop, kit):
    run_example()
    order = an_order()
    shop.place(order)
    kit.run_until_idle()
    assert shop.sent == [order.pk]


@section("Retry")
def test_retry_waits_between_attempts(run_example, shop, kit):
    run_example()
    run = shop.fetch_rates.enqueue()
    kit.run_until_idle()
    assert len(shop.calls) == 1
    kit.advance("5m")
    run.refresh_from_db()
    assert run.result() == {"EUR": 1.0}
    assert len(shop.calls) == 3


@section("Chain")
def test_chain_passes_results_on(run_example, shop):
    run_example()
    run = shop.fulfil.enqueue({"order_id": 7}).wait()
    assert run.result() == "charge for reservation of 7"


@section("Group")
def test_group_gives_results_in_order(run_example, shop):
    run_example()
    photos = {"photos": ["a.raw", "b.raw"]}
    assert shop.resize_all.enqueue(photos).wait().result() == ["a.jpg", "b.jpg"]
    run_example()
    run = shop.resize_everywhere.enqueue(photos).wait()
    assert run.result() == ["a.jpg", "b.jpg"]
    assert Run.objects.filter(parent=run).count() == 2


@section("Chord")
def test_chord_continues_with_all_results(run_example, shop):
    run_example()
    run = shop.count_all.enqueue({"pages": ["one two", "three"]}).wait()
    assert run.result() == 3


@section("Countdown and ETA")
def test_countdown_is_cancelled_by_an_event(run_example, shop, kit):
    run_example()
    for order_id in (1, 2):
        kit.send("shop/order.placed", {"order_id": order_id})
    kit.run_until_idle()
    kit.send("shop/order.paid", {"order_id": 1})
    kit.advance("3d")
    assert shop.reminded == [2]


@section("Beat")
def test_beat_fires_by_the_zone(run_example, shop, kit):
    run_example()
    kit.run_until_idle()
    kit.travel_to(datetime(2030, 3, 4, 7, 59, tzinfo=UTC), run=False)
    kit.run_until_idle()
    Run.objects.all().delete()
    kit.advance("2m")
    assert Run.objects.get().result() == "report of 2030-03-04"


@section("Errors")
def test_errors_start_the_handler(run_example, shop, kit):
    run_example()
    shop.sync.enqueue()
    kit.run_until_idle()
    assert shop.alerts == ["shop.sync: no such shop"]


@section("Move one task")
def test_old_task_starts_the_function(run_example, shop, kit):
    run_example()
    shop.export_shop_task("acme")
    kit.run_until_idle()
    assert Run.objects.get().result() == "export of acme"
