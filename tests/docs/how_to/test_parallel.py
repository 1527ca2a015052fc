"""Examples of docs/how-to/parallel.md."""

from __future__ import annotations

from tests.docs.examples import section


@section("Branches")
def test_branches(run_example, shop, kit):
    run_example()
    run = shop.book_trip.enqueue()
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "waiting"
    kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == {"flight": "flight is booked", "hotel": "hotel is booked"}


@section("Map over items")
def test_many_items(run_example, shop):
    run_example()
    run = shop.resize_all.enqueue({"photos": ["a.raw", "b.raw", "c.raw"]}).wait()
    assert run.result() == ["a.jpg", "b.jpg", "c.jpg"]


@section("Completion policies")
def test_when_is_it_enough(run_example, shop):
    run_example()
    assert shop.download.enqueue().wait().result() == "file from near"
    assert shop.survey.enqueue({"mirrors": ["near", "broken"]}).wait().result() == [
        "file from near"
    ]
    assert shop.survey.enqueue(
        {"mirrors": ["broken", "broken", "near"]}
    ).wait().result()[:2] == ["no answer", "no answer"]


@section("Async")
def test_async(run_example, shop, kit):
    run_example()
    run = shop.squares.enqueue()
    kit.advance("1s")
    run.refresh_from_db()
    assert run.result() == [1, 4, 9]
