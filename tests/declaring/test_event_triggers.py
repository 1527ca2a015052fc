"""Functions that start on events: names, wildcards and conditions."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit


def started(kit: Kit) -> list[str]:
    """Run until idle and return the functions of all completed runs."""
    kit.run_until_idle()
    runs = Run.objects.filter(status="completed")
    return sorted(runs.values_list("function", flat=True))


def test_event_starts_every_function_that_listens(durable_kit: Kit) -> None:
    for name in ("bill", "pack"):
        durable.function(id=name, on=durable.Event("shop/order.placed"))(
            lambda ctx: ctx.event.data
        )
    durable.function(id="other", on=durable.Event("shop/order.paid"))(lambda ctx: 1)

    event_id = durable_kit.send("shop/order.placed", {"order_id": 7})

    assert started(durable_kit) == ["bill", "pack"]
    for run in Run.objects.all():
        assert run.result() == {"order_id": 7}
        assert (run.trigger, run.event_id) == ("shop/order.placed", event_id)
    assert Event.objects.get().data == {"order_id": 7}


def test_event_without_functions_is_kept(durable_kit: Kit) -> None:
    event_id = durable_kit.send("nobody/listens", {"a": 1}, user={"id": 3}, v="2")
    assert started(durable_kit) == []
    event = Event.objects.get(pk=event_id)
    assert (event.data, event.user, event.v) == ({"a": 1}, {"id": 3}, "2")
    assert event.ts == durable_kit.now()


def test_context_has_the_event_as_sent(durable_kit: Kit) -> None:
    @durable.function(id="look", on=durable.Event("a/b"))
    def look(ctx):
        event = ctx.event
        assert ctx.events == [event]
        return [event.id, event.name, event.data, event.ts, event.user, event.v]

    event_id = durable_kit.send("a/b", {"x": 1}, user={"id": 3}, v="2")
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == [
        event_id, "a/b", {"x": 1}, durable_kit.now(), {"id": 3}, "2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("shop/*", "shop/order.placed", True),
        ("shop/*", "shop/order/line.added", True),
        ("shop/*", "shopping/list", False),
        ("shop/*", "shop", False),
        ("shop/order.*", "shop/order.placed", True),
        ("shop/order.*", "shop/order", False),
        ("shop/order.*", "shop/orders.placed", False),
        ("shop/order.placed", "shop/order.placed", True),
        ("shop/order.placed", "Shop/order.placed", False),
        ("shop/order.placed", "shop/order.placed.late", False),
    ],
)
def test_name_may_end_in_a_wildcard(
    durable_kit: Kit, pattern: str, name: str, matches: bool
) -> None:
    durable.function(id="listener", on=durable.Event(pattern))(lambda ctx: None)
    durable_kit.send(name)
    assert started(durable_kit) == (["listener"] if matches else [])


def test_function_with_two_matching_triggers_starts_once(durable_kit: Kit) -> None:
    @durable.function(id="both", on=[durable.Event("a/b"), durable.Event("a/*")])
    def both(ctx):
        pass

    durable_kit.send("a/b")
    assert started(durable_kit) == ["both"]
    durable_kit.send("a/c")
    assert started(durable_kit) == ["both", "both"]


def test_function_may_have_ten_triggers(durable_kit: Kit) -> None:
    triggers = [durable.Event(f"many/{number}") for number in range(10)]
    durable.function(id="many", on=triggers)(lambda ctx: None)
    durable_kit.send("many/0")
    durable_kit.send("many/9")
    assert started(durable_kit) == ["many", "many"]


@pytest.mark.parametrize(
    "condition",
    ["event.data.total > 10", lambda event: event.data["total"] > 10],
    ids=["CEL", "callable"],
)
def test_condition_decides(durable_kit: Kit, condition: str) -> None:
    @durable.function(id="big", on=durable.Event("shop/order", if_=condition))
    def big(ctx):
        return ctx.event.data["total"]

    for total in (5, 50, 10):
        durable_kit.send("shop/order", {"total": total})
    durable_kit.run_until_idle()
    assert [run.result() for run in Run.objects.all()] == [50]


def test_condition_sees_the_whole_event(durable_kit: Kit) -> None:
    condition = 'event.name == "a/b" && event.user.id == 3 && event.v == "2"'
    durable.function(id="exact", on=durable.Event("a/*", if_=condition))(lambda ctx: 1)
    durable_kit.send("a/b", user={"id": 3}, v="2")
    durable_kit.send("a/b", user={"id": 4}, v="2")
    durable_kit.send("a/c", user={"id": 3}, v="2")
    assert started(durable_kit) == ["exact"]


def test_missing_attribute_is_null(durable_kit: Kit) -> None:
    for name, condition in {
        "has": "event.data.total > 10",
        "lacks": "event.data.total == null",
    }.items():
        trigger = durable.Event("shop/order", if_=condition)
        durable.function(id=name, on=trigger)(lambda ctx: None)
    durable_kit.send("shop/order", {})
    assert started(durable_kit) == ["lacks"]
    assert not Run.objects.filter(status="skipped").exists()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("event.data.total >", "line 1, column"),
        ("event.data.total + 1 > 'a' &&", "line 1, column"),
        ("evnet.data.total > 1", "evnet"),
        ("'a text'", "expected a condition"),
        ("", "expected 1 to 1024 bytes"),
        (7, "is not an expression"),
        (lambda: True, "cannot be called as an expression"),
    ],
)
def test_broken_condition_is_refused_by_function_and_place(
    durable_kit: Kit, condition: str, expected: str
) -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="shop.pay", on=durable.Event("shop/order", if_=condition))(
            lambda ctx: None
        )
    message = str(caught.value)
    assert "'shop.pay'" in message
    assert "Event('shop/order') if_" in message
    assert expected in message


def test_broken_cancel_condition_is_refused_by_function_and_place(
    durable_kit: Kit,
) -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(
            id="shop.pay", cancel_on=durable.CancelOn("shop/stop", if_="async.data.x >")
        )(lambda ctx: None)
    message = str(caught.value)
    assert "'shop.pay'" in message
    assert "CancelOn('shop/stop') if_" in message


def broken(event):
    """Fail, as conditions do."""
    return event.data["total"] > event.data["limit"]


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("event.data.total > 'ten'", "event.data.total > 'ten'"),
        ("event.data.total", "returned a value of type int"),
        (broken, "KeyError: 'limit'"),
    ],
    ids=["types that do not compare", "no condition", "an exception"],
)
def test_failing_condition_leaves_a_skipped_run_with_a_reason(
    durable_kit: Kit, condition: str, reason: str
) -> None:
    durable.function(id="picky", on=durable.Event("a/b", if_=condition))(lambda ctx: 1)
    durable.function(id="easy", on=durable.Event("a/b"))(lambda ctx: 1)

    event_id = durable_kit.send("a/b", {"total": 5})

    assert started(durable_kit) == ["easy"]
    skipped = Run.objects.get(function="picky")
    assert skipped.status == "skipped"
    assert "Event('a/b') if_" in skipped.reason
    assert reason in skipped.reason
    assert (skipped.event_id, skipped.data) == (event_id, {"total": 5})
    assert skipped.started_at is None
    with pytest.raises(durable.RunCancelled, match="condition"):
        skipped.result()


def test_second_trigger_makes_up_for_a_failing_one(
    durable_kit: Kit,
) -> None:
    @durable.function(
        id="both", on=[durable.Event("a/b", if_=broken), durable.Event("a/*")]
    )
    def both(ctx):
        pass

    durable_kit.send("a/b", {"total": 5})
    assert started(durable_kit) == ["both"]
    assert Run.objects.count() == 1
