"""``Step.input``: the arguments of a body, for users to inspect."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from typing import Any

import pytest
from django.test import override_settings

from durable_jobs import durable
from durable_jobs.models import Step
from durable_jobs.serialization import arguments_text, loads
from durable_jobs.serialization.arguments import LARGEST, MEASURED
from durable_jobs.store import steps
from durable_jobs.testing import Kit
from project.shop.models import Tenant
from tests.engine.awaited import soon
from tests.engine.conftest import Later, Start
from tests.engine.failures import Broken, failing


def take(*args, **named):
    return None


def shown(*args, **named):
    return json.loads(arguments_text(args, named))


def test_step_stores_the_arguments_of_its_body(start: Start):
    def charging(ctx):
        ctx.step.run("both", take, 7, ("a", 2), currency="EUR")
        ctx.step.run("by place", take, 7)
        ctx.step.run("by name", take, order=7)
        ctx.step.atomic("atomic", take, order=7)
        ctx.step.run("nothing", take)

    found: dict[str, Any] = dict(start(charging).steps.values_list("name", "input"))

    assert found == {
        "both": {"args": [7, ("a", 2)], "kwargs": {"currency": "EUR"}},
        "by place": {"args": [7]},
        "by name": {"kwargs": {"order": 7}},
        "atomic": {"kwargs": {"order": 7}},
        "nothing": None,
    }


def test_inputs_can_be_switched_off(start: Start):
    def charging(ctx):
        return ctx.step.run("charge", take, 7)

    with override_settings(DURABLE_JOBS={"STORE_STEP_INPUTS": False}):
        assert start(charging).steps.get().input is None


def test_decorated_step_stores_its_input(start: Start):
    @durable.step
    def charge(order, currency):
        return order

    def charging(ctx):
        return charge(7, currency="EUR")

    assert start(charging).steps.get().input == {
        "args": [7],
        "kwargs": {"currency": "EUR"},
    }


def test_async_functions_store_inputs(start: Start):
    async def charging(ctx):
        await ctx.step.run("async body", soon, 7)
        await ctx.step.run("plain body", take, 8)

    found: dict[str, Any] = dict(start(charging).steps.values_list("name", "input"))
    assert found == {"async body": {"args": [7]}, "plain body": {"args": [8]}}


def test_branches_of_a_map_store_their_items(start: Start):
    def mapping(ctx):
        ctx.step.map("all", lambda item: ctx.step.run("x", take, item, 1), [7, "b"])
        ctx.step.parallel("two", [functools.partial(take, 3, n=4), take])

    branches = start(mapping).steps.filter(kind="branch").order_by("position")
    assert [branch.input for branch in branches] == [
        {"args": [7]},
        {"args": ["b"]},
        {"args": [3], "kwargs": {"n": 4}},
        None,
    ]
    assert list(Step.objects.filter(kind="run").values_list("input", flat=True)) == [
        {"args": [7, 1]},
        {"args": ["b", 1]},
    ]


def test_input_is_stored_before_the_body_changes_it(start: Start):
    def emptying(ctx):
        return ctx.step.run("empty", list.clear, [1, 2])

    assert start(emptying).steps.get().input == {"args": [[1, 2]]}


def test_retries_keep_the_input(start: Start, later: Later):
    fail = failing([], until=3)

    def flaky(ctx):
        return ctx.step.run("try", lambda *args: fail(), 7)

    run = start(flaky)
    assert run.steps.get().status == "scheduled"
    assert run.steps.get().input == {"args": [7]}

    assert later(run, "1h").status == "completed"
    assert run.steps.get().input == {"args": [7]}


def test_failed_step_keeps_its_input(start: Start):
    def refusing(ctx):
        ctx.step.run("try", lambda number: failing([])(), 7, retries=0)

    run = start(refusing, retries=0)
    assert run.steps.get().status == "failed"
    assert run.steps.get().input == {"args": [7]}


def test_retried_atomic_step_keeps_its_input(start: Start, later: Later):
    fail = failing([], until=2)

    def writing(ctx):
        return ctx.step.atomic("write", lambda *args: fail(), 7)

    run = later(start(writing), "1h")
    assert run.status == "completed"
    assert run.steps.get().input == {"args": [7]}


@pytest.mark.exact("a lost answer interrupts it")
def test_at_most_once_step_stores_its_input_at_its_beginning(
    start: Start, durable_kit: Kit
):
    seen = []

    def body(number):
        seen.append(Step.objects.get(name="once").input)

    def once(ctx):
        ctx.step.run("once", body, 7, at_most_once=True)

    run = start(once)
    assert seen == [{"args": [7]}]
    assert run.steps.get().status == "completed"
    assert run.steps.get().input == {"args": [7]}


def test_interrupted_step_keeps_its_input(start: Start, later: Later, durable_kit: Kit):
    def once(ctx):
        ctx.step.run("once", take, 7, at_most_once=True)

    durable_kit.crash_at("once", when="body")
    run = later(start(once, retries=0), "1h")

    step = run.steps.get()
    assert step.error["type"] == "StepInterrupted"
    assert step.input == {"args": [7]}


def test_replay_does_not_load_inputs(start: Start):
    def charging(ctx):
        ctx.step.run("charge", take, 7)

    run = start(charging)
    [step_record] = steps.load(run.pk).values()
    assert (step_record.input, step_record.logs) == (None, None)


def test_run_that_begins_from_a_step_has_that_of_the_steps_before(
    start: Start, durable_kit: Kit
):
    ann = Tenant.objects.create(name="Ann")

    def two(ctx):
        ctx.step.run("one", take, ann, (1, 2))
        ctx.step.run("two", take, 8)

    run = start(two)
    first = run.steps.get(name="one")
    text = _text(first)
    ann.delete()
    new = run.rerun(from_step="two")
    durable_kit.run_until_idle()

    copied = new.steps.get(name="one")
    assert copied.ended_at == first.ended_at
    assert _text(copied) == text


def test_replayed_history_has_inputs(start: Start, durable_kit: Kit):
    from durable_jobs.queries.run_document import history

    def charging(ctx):
        ctx.step.run("charge", take, (7,))

    document = json.loads(json.dumps(history(start(charging))))
    again = durable_kit.replay(document)
    assert again.steps.get().input == {"args": [(7,)]}

    for step in document["steps"]:
        del step["input"]  # as in older documents
    assert durable_kit.replay(document).steps.get().input is None


def test_argument_that_cannot_be_stored_is_shown_as_its_type(start: Start):
    def session(ctx):
        lock = threading.Lock()
        return ctx.step.run("use", lambda *args, **named: 7, lock, {"id": 7, "l": lock})

    run = start(session)
    lock = {"not stored": "_thread.lock"}
    assert run.result() == 7
    assert run.steps.get().input == {"args": [lock, {"id": 7, "l": lock}]}


@dataclasses.dataclass
class Hostile:
    """Raises on every access."""

    name: str

    def __getattribute__(self, name):
        raise Broken(name)


def test_arguments_that_raise_fail_nothing(start: Start):
    def deep(levels):
        found: list[Any] = []
        for _ in range(levels):
            found = [found]
        return found

    endless: list[Any] = []
    endless.append(endless)
    odd = shown(
        float("nan"), "a\x00b", "\ud800", 10**5000, take, Tenant(name="x"),
        {"a\x00": 1}, {1: threading.Lock()}, object.__new__(Hostile), [1, object()],
    )  # fmt: skip
    assert odd["args"] == [
        {"not stored": "float"},
        {"not stored": "str"},
        {"not stored": "str"},
        {"not stored": "int"},
        {"not stored": "function"},
        {"not stored": "project.shop.models.Tenant"},
        {"a\\x00": 1},
        {"not stored": "dict"},
        {"not stored": "tests.engine.test_inputs.Hostile"},
        [1, {"not stored": "object"}],
    ]
    assert "not stored" in json.dumps(shown(deep(200)))
    assert shown(endless) == {"not stored": "arguments that cannot be read"}


@pytest.mark.parametrize("letter", ["x", "é"])
def test_large_input_is_replaced_by_its_size(letter):
    def fits(count):
        return "args" in shown(letter * count)

    bare = len('{"args":[""]}')
    most = (LARGEST - bare) // len(letter.encode())
    assert fits(most)
    assert not fits(most + 1)
    assert shown("x" * 12_332) == {"not stored": "12,345 bytes"}


@pytest.mark.parametrize(
    "huge",
    [
        "x" * MEASURED,
        b"x" * MEASURED,
        list(range(MEASURED)),
        {"a": {1: [""] * MEASURED}},
    ],
)
def test_huge_input_is_not_even_measured(monkeypatch, huge):
    from durable_jobs.serialization import arguments

    monkeypatch.delattr(arguments, "dumps")
    assert shown(1, huge) == {"not stored": "more than 100,000 bytes"}


def test_input_is_read_back_with_its_types():
    assert loads(arguments_text(((1, 2),), {})) == {"args": [(1, 2)]}
    assert arguments_text((), {}) is None


def test_token_of_a_callback_is_not_stored(start: Start):
    given = []

    def asking(ctx):
        return ctx.step.wait_for_callback("answer", given.append)

    step = start(asking).steps.get()
    assert given
    assert step.input is None


def _text(step):
    from django.db.models import TextField
    from django.db.models.functions import Cast

    texts = Step.objects.values_list(Cast("input", TextField()), flat=True)
    return texts.get(pk=step.pk)
