"""A repeated event id starts each function at most once in 24 hours."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit


@pytest.fixture
def seen(durable_kit: Kit) -> list[object]:
    """Declare a function on ``a/b`` and return the data of its runs."""
    found: list[object] = []
    durable.function(id="look", on=durable.Event("a/b"))(
        lambda ctx: found.append(ctx.event.data["n"])
    )
    return found


def test_ids_are_generated_if_none_is_given(
    durable_kit: Kit, seen: list[object]
) -> None:
    first = durable_kit.send("a/b", {"n": 1})
    second = durable_kit.send("a/b", {"n": 1})
    assert first != second
    durable_kit.run_until_idle()
    assert seen == [1, 1]


def test_repeated_id_starts_nothing(durable_kit: Kit, seen: list[object]) -> None:
    assert durable_kit.send("a/b", {"n": 1}, id="order-7") == "order-7"
    durable_kit.run_until_idle()
    assert durable_kit.send("a/b", {"n": 2}, id="order-7") == "order-7"
    durable_kit.run_until_idle()
    assert seen == [1]
    assert Event.objects.get().data == {"n": 1}


def test_id_repeated_in_one_request_counts_once(
    durable_kit: Kit, seen: list[object]
) -> None:
    ids = durable_kit.send_many(
        [durable.NewEvent("a/b", {"n": n}, id="order-7") for n in (1, 2)]
        + [durable.NewEvent("a/b", {"n": 3})]
    )
    durable_kit.run_until_idle()
    assert ids[:2] == ["order-7", "order-7"]
    assert sorted(map(str, seen)) == ["1", "3"]
    # The stored data is what the run saw.
    assert Event.objects.get(pk="order-7").data == {"n": 1}


def test_id_is_remembered_for_24_hours(durable_kit: Kit, seen: list[object]) -> None:
    durable_kit.send("a/b", {"n": 1}, id="order-7")
    durable_kit.advance("23h59m59s")
    durable_kit.send("a/b", {"n": 2}, id="order-7")
    durable_kit.run_until_idle()
    assert seen == [1]
    durable_kit.advance("1s")
    durable_kit.send("a/b", {"n": 3}, id="order-7")
    durable_kit.run_until_idle()
    assert seen == [1, 3]
    assert Event.objects.get().data == {"n": 3}


def test_repeats_do_not_prolong_the_24_hours(
    durable_kit: Kit, seen: list[object]
) -> None:
    durable_kit.send("a/b", {"n": 1}, id="order-7")
    for _ in range(3):
        durable_kit.advance("8h")
        durable_kit.send("a/b", {"n": 2}, id="order-7")
    durable_kit.run_until_idle()
    assert seen == [1, 2]


def test_functions_remember_ids_separately(
    durable_kit: Kit, seen: list[object]
) -> None:
    durable_kit.send("a/b", {"n": 1}, id="order-7")
    durable_kit.run_until_idle()
    durable.function(id="late", on=durable.Event("a/b"))(
        lambda ctx: seen.append("late")
    )
    durable_kit.send("a/b", {"n": 1}, id="order-7")
    durable_kit.run_until_idle()
    assert seen == [1, "late"]


def test_repeated_event_ends_no_wait_again(durable_kit: Kit) -> None:
    @durable.function(id="wait")
    def wait(ctx):
        found = ctx.step.wait_for_event("go", "a/go", timeout="1h")
        again = ctx.step.wait_for_event("go", "a/go", timeout="1h")
        return [found.data["n"], again]

    run = wait.enqueue()
    durable_kit.run_until_idle()
    for number in (1, 2):
        durable_kit.send("a/go", {"n": number}, id="go-1")
        durable_kit.run_until_idle()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == [1, None]


def test_id_sent_after_24_hours_ends_waits_again(durable_kit: Kit) -> None:
    @durable.function(id="wait")
    def wait(ctx):
        found = ctx.step.wait_for_event("go", "a/go", timeout="7d")
        again = ctx.step.wait_for_event("go", "a/go", timeout="7d")
        return [found.data["n"], again.data["n"]]

    run = wait.enqueue()
    durable_kit.run_until_idle()
    durable_kit.send("a/go", {"n": 1}, id="go-1")
    durable_kit.advance("25h")
    durable_kit.send("a/go", {"n": 2}, id="go-1")
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == [1, 2]


def test_failed_run_is_not_started_again_by_its_event(durable_kit: Kit) -> None:
    def fail(ctx):
        raise durable.NonRetriableError("no")

    durable.function(id="fail", on=durable.Event("a/b"))(fail)
    for _ in range(2):
        durable_kit.send("a/b", id="order-7")
        durable_kit.run_until_idle()
    assert Run.objects.get().status == "failed"


@pytest.mark.parametrize("wrong", ["", " x", "x" * 256, 7, "a\x00b"])
def test_id_is_a_printable_name(durable_kit: Kit, wrong: str) -> None:
    with pytest.raises(durable.ConfigurationError, match="an event id"):
        durable_kit.send("a/b", id=wrong)


def test_id_with_two_names_is_refused(durable_kit: Kit) -> None:
    durable_kit.send("order/placed", {"n": 1}, id="order-7")
    with pytest.raises(durable.DuplicateKeyError, match="was used for 'order/placed'"):
        durable_kit.send("order/cancelled", {"n": 2}, id="order-7")
