"""Keys and conditions, in CEL and in Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs.exceptions import ConfigurationError, ExpressionError
from durable_jobs.expressions import compile_expression
from durable_jobs.expressions.program import _environment

WHERE = "function shop.fulfil, if_"
EVENT = {
    "name": "shop/order.placed",
    "data": {
        "total": 40,
        "weight": 1.5,
        "zero": None,
        "flag": True,
        "who": "Zoë",
        "event": "tricky",
        "odd-key": 1,
        "items": [{"sku": "a", "price": 3}, {"sku": "b"}, 5],
        "nested": {"a": {"b": 7}},
        "huge": 10**30,
    },
}


def result(source: Any, **values: Any) -> Any:
    expression = compile_expression(source, where=WHERE, variables=("event", "async"))
    return expression.evaluate({"event": EVENT, **values})


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("event.data.total", 40), ("event.data.total > 0", True),
        ("event.data.total > 0 && event.data.who == 'Zoë'", True),
        ("event.data.total + 2", 42), ("event.data.weight * 2.0", 3.0),
        ("event.data.total == 40.0", True), ("event.data['total']", 40),
        ("event.data[\"odd-key\"]", 1), ("event.data.`odd-key`", 1),
        ("event . data // a comment with event.data.x\n . total", 40),
        ("event.data.items[0].sku", "a"), ("event.data.items[2]", 5),
        ("event.data.nested.a", {"b": 7}), ("event.data[event.data.who]", None),
        ("event.data['nest' + 'ed'].a.b", 7), ("event.data.event", "tricky"),
        ("'event.data.total'", "event.data.total"), (r"r'\d' + 'event.name'",
        r"\devent.name"), ("'''event.data'''", "event.data"),
        ("event.name.startsWith('shop/')", True), ("event.name.size()", 17),
        ("size(event.data.items)", 3), ("string(event.data.total) + '-x'", "40-x"),
        ("event.name.matches('^shop/.*placed$')", True),
        ("event.data.total in [1, 40]", True), ("'who' in event.data", True),
        ("event.data.flag ? 'yes' : 'no'", "yes"),
        ("type(event.data.total) == int", True),
        ("[event.data.total, {'a': event.name}]", [40, {"a": "shop/order.placed"}]),
        ("timestamp('2024-01-01T00:00:00Z')", "2024-01-01T00:00:00Z"),
        ("duration('90s')", 90.0), ("event.data.huge > 5", True),
        ("has(event.data.total)", True), ("has(event.data.zero)", True),
        ("event.data.items.exists(i, i.sku == 'b')", True),
        ("event.data.items.exists(i, i.price == null)", True),
        ("event.data.total - -2", 42), ("1", 1), ("null", None),
        ("!event.data.flag", False),
    ],
)  # fmt: skip
def test_cel_over_an_event(source: str, value: Any) -> None:
    found = result(source)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("event.data.no", None), ("event.data.no == null", True),
        ("event.data.no != null", False), ("event.data.no > 0", None),
        ("event.data.zero > 0", None), ("event.data.zero == null", True),
        ("event.data.no.deeper.still == null", True), ("event.no.deeper", None),
        ("event.data.zero.deeper == null", True),
        ("event.data.total.deeper == null", True),
        ("event.data.items[9] == null", True),
        ("event.data.items[9].sku == null", True),
        ("event.data.items.sku == null", True),
        ("event.data.items[event.data.total]", None),
        ("event.data[event.data.no]", None),
        ("event.data.no == null || event.data.no.x > 3", True),
        ("event.data.no > 0 || event.data.total > 0", True),
        ("event.data.total > 0 || event.data.no > 0", True),
        ("event.data.no > 0 && event.data.total > 0", None),
        ("event.data.no > 0 && event.data.total < 0", False),
        ("event.data.no || event.data.flag", True),
        ("event.data.no && event.data.flag", None),
        ("!event.data.no", None), ("!(event.data.no > 0)", None),
        ("event.data.no ? 1 : 2", None), ("event.data.no + 1", None),
        ("event.data.no + 'x'", None), ("string(event.data.no)", None),
        ("event.data.no.startsWith('x')", None),
        ("'x'.startsWith(event.data.no)", None),
        ("size(event.data.no)", None), ("event.data.no in [1, null]", True),
        ("1 in event.data.no", None), ("event.data.no.exists(i, i > 1)", None),
        ("-event.data.no", None), ("has(event.data.no)", False),
        ("has(event.data.no.deeper)", False), ("has(event.data.total.deeper)", False),
        ("async.data.x == event.data.no", True), ("async", None),
        ("event.data.items.exists(i, i.price > 2)", True),
        ("event.data.items.all(i, i.price > 2)", None),
        ("event.data.items.exists(i, i.no)", None),
    ],
)  # fmt: skip
def test_missing_attribute_is_null_and_propagates(source: str, value: Any) -> None:
    assert result(source) == value


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff"), None), (Decimal("2.50"), 2.5),
        (Decimal("3"), 3), (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00Z"),
        (timedelta(minutes=1), 60.0), ((1, 2), [1, 2]), ({1}, [1]),
    ],
)  # fmt: skip
def test_values_that_json_lacks_are_seen_as_their_like(value: Any, seen: Any) -> None:
    expected = str(value) if seen is None else seen
    assert result("event.data.x", event={"data": {"x": value}}) == expected
    assert result(lambda event: event["x"], event={"x": value}) == expected


@pytest.mark.parametrize(
    "source",
    ["event.data.who > 1", "1 / 0", "event.data.who ? 1 : 2", "int(event.data.who)",
     "event.data.total + 1.5", "b'x'", "1.0 / 0.0", "event.data.who.matches('(')",
     "{1: 2}", "event.bad", "event.data.long.all(i, i >= 0)",
     "event.data.long.exists(a, event.data.long.exists(b, b == -1))"],
)  # fmt: skip
def test_failing_expression_raises_an_error_with_its_place(
    source: str,
) -> None:
    event = {**EVENT, "bad": object(), "data": {**EVENT["data"], "long": [1] * 20_000}}  # type: ignore[dict-item]
    with pytest.raises(ExpressionError) as caught:
        result(source, event=event)
    assert caught.value.message.startswith(f"{WHERE}: ")
    assert source in caught.value.message


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("event.data.total >", "line 1, column 19"), ("", "1 to 1024 bytes"),
        (" ", "1 to 1024 bytes"), ("'" + "x" * 1030 + "'", "1 to 1024 bytes"),
        ("évent", "column 1"), ("foo.bar", "undeclared reference to 'foo.bar'"),
        ("event.data.nope()", "nope"), ("'x", "column 1"), ("event.?x", "unsupported"),
        ("null > 0", "no matching overload"), ("\ud800", "compiled"), ("\0",
        "compiled"),
        ("(" * 300 + "1" + ")" * 300, "recursion"), ("event" + ".x" * 400, "recursion"),
        ("event.data.items.map(i, i)", "'map' is not available"),
        ("event.data.items.filter(i, true)", "'filter' is not available"),
        ("event.data.items.all(event, true)", "hides the variable 'event'"),
        (5, "not an expression"), (None, "not an expression"),
        (b"event", "not an expression"),
    ],
)  # fmt: skip
def test_invalid_expression_is_refused_with_the_place(source: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        compile_expression(source, where=WHERE)
    assert caught.value.message.startswith(f"{WHERE}: ")


def test_compile_error_points_at_the_users_own_text() -> None:
    with pytest.raises(ConfigurationError) as caught:
        compile_expression("event.data.total > > 5", where=WHERE)
    assert " | event.data.total > > 5\n | ...................^" in caught.value.message


@given(st.text("event.dat[]()'\"?:!&|<>=+ 01,\\`rb#\n/", max_size=30))
def test_any_string_compiles_and_runs_or_is_refused(source: str) -> None:
    try:
        expression = compile_expression(source, where=WHERE)
    except ConfigurationError:
        return
    try:
        expression.evaluate({"event": EVENT})
    except ExpressionError:
        return


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("xy", max_size=2),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)


@given(PATHS, PATHS, DATA)
def test_attributes_are_what_python_would_find(
    left: list[str], right: list[str], data: Any
) -> None:
    def at(path: list[str]) -> Any:
        found = data
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def cel(path: list[str]) -> str:
        return ".".join(["event", *path])

    values = {"event": data}
    assert compile_expression(cel(left), where=WHERE).evaluate(values) == at(left)
    equal = f"{cel(left)} == {cel(right)}"
    same = at(left) == at(right) and isinstance(at(left), bool) == isinstance(
        at(right), bool
    )
    if not isinstance(at(left), dict):
        assert compile_expression(equal, where=WHERE).evaluate(values) is same


def test_values_that_an_expression_does_not_name_are_ignored() -> None:
    event = {"data": {"total": 1, "other": object()}}
    assert result("event.data.total", event=event) == 1


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("event.data.total > 0", True), ("event.data.total < 0", False),
        ("event.data.no > 0", False), ("event.data.no", False),
        ("event.data.flag", True),
        (lambda event: event["data"]["items"], True), (lambda event: None, False),
        (lambda event: object(), True),
    ],
    ids=range(8),
)  # fmt: skip
def test_condition_is_true_or_false_and_null_is_false(source: Any, holds: bool) -> None:
    expression = compile_expression(source, where=WHERE, condition=True)
    assert expression.test({"event": EVENT}) is holds


def test_condition_without_a_bool_is_refused_as_early_as_possible() -> None:
    with pytest.raises(ConfigurationError, match="returns STRING; expected a"):
        compile_expression("'a' + event.name", where=WHERE, condition=True)
    expression = compile_expression("event.name", where=WHERE, condition=True)
    with pytest.raises(ExpressionError, match="expected a condition"):
        expression.test({"event": EVENT})


def test_callables_take_the_variables_in_order_or_only_the_first() -> None:
    assert result(lambda event, other: [event["name"], other], **{"async": 5}) == [
        "shop/order.placed", 5
    ]  # fmt: skip
    assert result(lambda event: event["name"]) == "shop/order.placed"
    assert result(lambda *values: len(values)) == 2
    assert result(len) == 2


def test_expression_has_its_source_and_place() -> None:
    text = compile_expression("event.name", where=WHERE)
    call = compile_expression(lambda event: event, where=WHERE)
    assert text.wants_mapping
    assert text.source == "event.name"
    assert not call.wants_mapping
    assert "test_expressions" in call.source
    assert "<lambda> (line " in call.source


async def later(event: Any) -> Any:
    return event


@pytest.mark.parametrize(
    "function", [lambda: 1, lambda a, b, c: 1, later], ids=["none", "three", "async"]
)
def test_callable_that_cannot_be_called_is_refused(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(ConfigurationError, match=r"function shop\.fulfil.*expected"):
        compile_expression(function, where=WHERE)


@pytest.mark.parametrize(
    "function",
    [lambda event: 1 / 0, lambda event: object(), lambda event: {1: 2}],
    ids=["raises", "object", "keys"],
)
def test_callable_that_fails_is_an_expression_error(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(ExpressionError, match=r"function shop\.fulfil.*<lambda>"):
        result(function)


def test_expression_without_the_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python.cel", None)
    _environment.cache_clear()
    with pytest.raises(ConfigurationError, match=r'pip install "durable-jobs\[cel\]"'):
        compile_expression("event.name", where=WHERE)
    assert compile_expression(lambda event: 1, where=WHERE).evaluate({}) == 1
