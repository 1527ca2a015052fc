"""The corpus of hostile inputs, against every reader of external input."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from django.core.exceptions import ObjectDoesNotExist
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs import durable
from durable_jobs.engine.errors import describe_error, rebuild
from durable_jobs.exceptions import (
    ConfigurationError,
    DurableError,
    ExpressionError,
    LimitExceeded,
    PayloadError,
)
from durable_jobs.expressions import compile_expression
from durable_jobs.http_input import parse_json
from durable_jobs.models import Run
from durable_jobs.serialization import dumps, from_tree, loads
from durable_jobs.serialization.match_keys import comparable, leaf_keys
from durable_jobs.serialization.stored import decode_lenient
from durable_jobs.testing import Kit
from tests.api.conftest import Caller
from tests.corpus import Box, boxed, guarded, tried
from tests.corpus.errors import errors
from tests.corpus.values import (
    EXPRESSIONS,
    FRAGMENTS,
    PAYLOADS,
    STORED,
    VALUES,
    Held,
    bodies,
)
from tests.unit.test_serialization import same as equal_and_typed

pytestmark = pytest.mark.django_db


def same(left: Any, right: Any) -> bool:
    """Return whether two values have equal contents and types at every level."""
    if isinstance(left, Held) and isinstance(right, Held):
        return same(left.value, right.value) and same(left.more, right.more)
    if isinstance(left, list | tuple) and type(left) is type(right):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and type(left) is type(right):
        return left.keys() == right.keys() and all(
            same(item, right[key]) for key, item in left.items()
        )
    return equal_and_typed(left, right)


# The codec


@given(boxed(VALUES))
@tried(150)
def test_codec_returns_what_it_accepts(box: Box) -> None:
    value = box.value
    try:
        text = dumps(value, what="a value")
    except PayloadError:
        return
    text.encode()
    assert "\\u0000" not in text
    assert same(loads(text), loads(dumps(loads(text), what="a value")))
    assert same(value, loads(text)) or _is_lowered(value)


def _is_lowered(value: Any) -> bool:
    """Return whether a value contains a kind that is stored as its plain kind."""
    return "Text(" in _kinds(value) or "OrderedDict(" in _kinds(value)


def _kinds(value: Any) -> str:
    if isinstance(value, dict):
        inner = "".join(_kinds(key) + _kinds(item) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        inner = "".join(map(_kinds, value))
    elif isinstance(value, Held):
        inner = _kinds(value.value)
    else:
        inner = ""
    return f"{type(value).__name__}({inner})"


@given(boxed(PAYLOADS))
@tried(40)
def test_store_returns_what_it_accepts(kit: Kit, box: Box) -> None:
    data = box.value
    function = _echo()
    try:
        run = function.enqueue(data)
    except (PayloadError, LimitExceeded):
        return
    kit.run_until_idle()
    stored = Run.objects.get(pk=run.pk)
    assert stored.status == "completed"
    expected = loads(dumps(data, what="data"))
    assert same(stored.data, expected)
    assert same(stored.result(), expected)


@given(boxed(PAYLOADS))
@tried(30)
def test_accepted_event_reaches_its_waits(kit: Kit, box: Box) -> None:
    data = box.value
    waits = _waiting()
    run = waits.enqueue()
    kit.run_until_idle()
    try:
        kit.send("tests/hostile", data)
    except (PayloadError, LimitExceeded):
        kit.send("tests/hostile", {})
        data = {}
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "completed"
    assert same(run.result(), loads(dumps(data, what="data")))


def _declared(id: str, body: Any) -> durable.Function:
    """Declare a function once in a kit."""
    from durable_jobs.definitions.registry import registry

    found = registry.find(id)
    return found or durable.function(id=id, retries=0)(body)


def _echo() -> durable.Function:
    return _declared(
        "tests.echo", lambda ctx: ctx.step.run("echo", lambda: ctx.event.data)
    )


def _waiting() -> durable.Function:
    return _declared(
        "tests.waiting",
        lambda ctx: ctx.step.wait_for_event("wait", "tests/hostile").data,
    )


# Stored trees and references


@given(STORED)
@tried(200)
def test_stored_tree_is_read_or_refused(db: None, tree: Any) -> None:
    text = json.dumps(tree)
    for read in (from_tree, lambda tree: loads(json.dumps(tree))):
        try:
            read(tree)
        except (PayloadError, ObjectDoesNotExist):
            continue
    decode_lenient(text)


# Requests

PATHS = (
    "events", "signals/go", "functions/tests.echo/runs", "runs/bulk",
    "callbacks/wrong/succeed", "callbacks/wrong/fail",
)  # fmt: skip
TYPES = st.sampled_from(
    ["application/json", "application/x-ndjson", "application/vnd.x+json", "text/html"]
)


@given(bodies(), st.sampled_from(PATHS), TYPES)
@tried(150)
def test_request_is_accepted_or_refused(
    kit: Kit, api: Caller, body: bytes, path: str, kind: str
) -> None:
    _echo()
    response = api.post(path, body, kind)
    assert response.status_code < 500, response.content
    assert response.status_code != 404 or path.startswith("callbacks")


@given(st.lists(FRAGMENTS, min_size=1, max_size=3).map(b"".join))
@tried(25)
def test_json_is_read_in_linear_time(unit: bytes) -> None:
    small, large = (_seconds(unit * (size // len(unit))) for size in (2**15, 2**19))
    # Sixteen times the size takes sixteen times the time, not the square of that.
    assert large < 16 * 6 * small + 0.05


def _seconds(text: bytes) -> float:
    """Return the processor time that a text costs, the best of three."""
    taken = []
    for _ in range(3):
        begin = time.thread_time()
        with contextlib.suppress(PayloadError, LimitExceeded):
            parse_json(text, what="the body", most=len(text))
        taken.append(time.thread_time() - begin)
    return min(taken)


# Errors


@given(boxed(errors()))
@tried(150)
def test_error_is_described_whatever_its_methods_do(box: Box) -> None:
    record = guarded(lambda: describe_error(box.value))
    text = json.dumps(record)
    text.encode()
    assert "\\u0000" not in text
    assert len(text) < 200_000
    rebuilt = guarded(lambda: rebuild(record, "a step", "key"))
    assert str(rebuilt) == record["message"] or not record["message"]


@given(boxed(errors()), st.booleans())
@tried(30)
def test_run_ends_whatever_its_body_raises(kit: Kit, box: Box, inside: bool) -> None:
    def raises() -> None:
        raise box.value

    def body(ctx: durable.Context) -> None:
        if inside:
            ctx.step.run("raise", raises, retries=0)
        raises()

    function = durable.function(id=f"tests.raises{id(box)}", retries=0)(body)
    run, innocent = function.enqueue(), _echo().enqueue({"a": 1})
    guarded(kit.run_until_idle)
    run.refresh_from_db()
    innocent.refresh_from_db()
    assert run.status == "failed"
    assert run.error["type"]
    assert innocent.result() == {"a": 1}


@given(boxed(VALUES))
@tried(30)
def test_run_ends_whatever_its_body_returns(kit: Kit, box: Box) -> None:
    function = _declared("tests.returns", lambda ctx: ctx.step.run("give", gives[-1]))
    gives.append(lambda: box.value)
    run = function.enqueue()
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.status in ("completed", "failed")
    if run.status == "failed":
        assert run.error["type"] in ("PayloadError", "LimitExceeded", "StepFailed")


gives: list[Any] = []


# Expressions and matching


@given(EXPRESSIONS, boxed(VALUES))
@tried(200)
def test_expression_returns_a_json_value_or_is_refused(text: str, box: Box) -> None:
    try:
        expression = compile_expression(
            text, variables=("event", "async"), where="here"
        )
    except ConfigurationError:
        return
    try:
        found = expression.evaluate({"event": {"data": {"x": box.value}}})
    except ExpressionError:
        return
    json.dumps(found, allow_nan=False)


@given(boxed(VALUES))
@tried(100)
def test_matching_takes_or_refuses_any_value(box: Box) -> None:
    value = box.value
    keys = leaf_keys({"data": {"x": value}})
    assert keys is None or all(len(key) == 40 for key in keys)
    try:
        assert comparable(value) == comparable(value)
    except DurableError:
        return
