"""``ctx.step.wait_for_signal``: data for the one run that waits for a name."""

from __future__ import annotations

import pytest
from django.db import transaction

from durable_jobs import durable
from durable_jobs.models import Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start


def hearing(**options):
    """Return a function that waits for the signal that its data names."""
    seen = []

    def hear(ctx):
        name = ctx.event.data.get("name", "hammer")
        try:
            seen.append(ctx.step.wait_for_signal("hear", name, **options))
        except (durable.SignalTaken, durable.SignalReplaced) as error:
            seen.append((type(error).__name__, error.error_type, str(error)))
        ctx.step.sleep("nap", "1h")
        return seen[-1]

    return durable.function(id="tests.hear")(hear), seen


@pytest.mark.parametrize("data", [None, 0, "text", {"a": [1]}, [1, 2]], ids=repr)
def test_wait_returns_the_data_of_the_signal(
    start: Start, later: Later, durable_kit: Kit, data
):
    hear, seen = hearing()
    run = start(hear)
    assert run.status == "waiting"
    assert run.lease_token is None, "a worker is still busy"

    woken = durable.signal("hammer", data)
    assert woken is not None
    assert woken.pk == run.pk
    assert later(run, "1h").result() == data
    assert seen == [data] * len(seen)
    assert len(seen) >= 2


def test_signal_without_a_waiting_run_is_lost(
    start: Start, later: Later, durable_kit: Kit
):
    hear, _ = hearing(timeout="1h")
    assert durable.signal("hammer", 1) is None
    run = start(hear)
    assert durable.signal("another", 1) is None

    assert later(run, "2h").result() is None


def test_signal_resumes_once(start: Start, later: Later, durable_kit: Kit):
    hear, _ = hearing()
    run = start(hear)
    durable.signal("hammer", 1)

    assert durable.signal("hammer", 2) is None
    assert later(run, "1h").result() == 1


def test_timeout_returns_none(start: Start, later: Later, durable_kit: Kit):
    hear, seen = hearing(timeout="1h")
    run = later(start(hear), "1h")

    assert durable.signal("hammer", 1) is None
    assert later(run, "1h").result() is None
    assert seen == [None] * len(seen)


def test_second_waiter_fails(start: Start, later: Later, durable_kit: Kit):
    hear, seen = hearing()
    first = start(hear)
    second = later(start(hear), "1h")

    assert len(seen) >= 2
    assert len(set(seen)) == 1
    name, kind, message = seen[0]
    assert (name, kind) == ("SignalTaken", "SignalTaken")
    assert "'hammer'" in message
    assert second.status == "completed"
    durable.signal("hammer", "for the first")
    assert later(first, "1h").result() == "for the first"


def test_second_waiter_that_replaces_the_first(
    start: Start, later: Later, durable_kit: Kit
):
    hear, _ = hearing(on_conflict="replace")
    first = start(hear)
    second = start(hear)
    first = later(first)
    assert Wait.objects.filter(kind="signal").get().run_id == second.pk

    durable.signal("hammer", "for the second")
    first, second = later(first, "1h"), later(second)
    assert second.result() == "for the second"
    kind, error_type, message = first.result()
    assert kind == error_type == "SignalReplaced"
    assert str(second.pk) in message


def test_waits_for_other_names_are_ignored(
    start: Start, later: Later, durable_kit: Kit
):
    hear, _ = hearing()
    runs = [start(hear, {"name": f"signal {number}"}) for number in range(3)]
    for number in [2, 0, 1]:
        durable.signal(f"signal {number}", number)

    assert [later(run, "1h").result() for run in runs] == [0, 1, 2]


def test_name_is_free_again_when_its_waiter_has_ended(
    start: Start, later: Later, durable_kit: Kit
):
    hear, _ = hearing()
    first = start(hear)
    assert first.cancel(reason="not needed")
    second = start(hear)

    durable.signal("hammer", 2)
    assert later(second, "1h").result() == 2


def test_run_may_wait_for_one_name_repeatedly(
    start: Start, later: Later, durable_kit: Kit
):
    def listening(ctx):
        return [ctx.step.wait_for_signal("hear", "hammer") for _ in range(3)]

    run = start(listening)
    for number in range(3):
        durable.signal("hammer", number)
        run = later(run)

    assert run.result() == [0, 1, 2]


def test_taken_name_inside_a_group(start: Start, later: Later, durable_kit: Kit):
    """Records deferred with the refused wait are written with its failure."""
    hear, _ = hearing()
    start(hear)

    def taken(ctx):
        with ctx.step.group("inside"):
            try:
                ctx.step.wait_for_signal("hear", "hammer")
            except durable.SignalTaken:
                ctx.step.run("note", lambda: 1)
        ctx.step.sleep("nap", 1)

    run = start(taken)
    group = run.steps.get(name="inside")
    assert set(group.children.values_list("name", flat=True)) == {"hear", "note"}
    assert group.position < run.steps.get(name="hear").position
    assert later(run, 1).status == "completed"


def test_wait_inside_an_open_transaction_is_refused(start: Start, durable_kit: Kit):
    def inside(ctx):
        with transaction.atomic():
            ctx.step.wait_for_signal("hear", "hammer")

    run = start(inside)
    assert run.error["type"] == "ConfigurationError"
    assert "transaction.atomic()" in run.error["message"]
    assert not Wait.objects.exists()


def test_signal_within_a_transaction_that_rolls_back_was_not_given(
    start: Start, later: Later, durable_kit: Kit
):
    hear, _ = hearing()
    run = start(hear)
    with transaction.atomic():
        durable.signal("hammer", "never")
        transaction.set_rollback(True)
    assert later(run).status == "waiting"

    durable.signal("hammer", "truly")
    assert later(run, "1h").result() == "truly"


def test_data_that_cannot_be_stored_is_refused_at_the_caller(
    start: Start, later: Later, durable_kit: Kit
):
    hear, _ = hearing()
    run = start(hear)
    with pytest.raises(durable.PayloadError, match="hammer"):
        durable.signal("hammer", object())
    with pytest.raises(durable.ConfigurationError):
        durable.signal("", 1)

    durable.signal("hammer", 1)
    assert later(run, "1h").result() == 1
