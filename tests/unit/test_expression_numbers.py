"""Numbers in CEL: compared as Python and ``match`` compare them, or refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs.exceptions import ConfigurationError, ExpressionError
from durable_jobs.expressions import compile_expression
from durable_jobs.flow_control.keys import key_text, normalized
from durable_jobs.serialization.match_keys import comparable, leaf_keys, match_key

EDGES = [0, 1, 2**53, 2**63, 2**64, 2**65, 10**20, 10**30, 10**400]
NEAR = st.builds(
    lambda edge, step, sign: sign * (edge + step),
    st.sampled_from(EDGES),
    st.integers(-2, 2),
    st.sampled_from([1, -1]),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NEAR_FLOATS = NEAR.filter(lambda one: abs(one) < 10**300).map(float)
NUMBERS = NEAR | NEAR_FLOATS | FLOATS | st.integers(-3, 3) | st.just(-0.0)
SCALARS = NUMBERS | st.none() | st.booleans() | st.sampled_from(["", "1", "true", "é"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=6,
)


def equal(one: Any, other: Any) -> bool:
    """Compare as Python does, except that true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            equal(one[key], other[key]) for key in one
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


@st.composite
def pairs(draw: Any, values: Any = VALUES) -> tuple[Any, Any]:
    """Draw two values that are often equal, or nearly."""
    one = draw(values)
    return one, draw(values | st.just(one) | st.just(one).map(_other_kind))


def _other_kind(value: Any) -> Any:
    """Convert the numbers in a value between int and float."""
    if isinstance(value, list):
        return [_other_kind(item) for item in value]
    if isinstance(value, dict):
        return {key: _other_kind(item) for key, item in value.items()}
    if isinstance(value, float):
        return int(value)
    if isinstance(value, int) and abs(value) < 10**300:
        return float(value)
    return value


def cel(source: str, one: Any, other: Any = None) -> Any:
    expression = compile_expression(source, where="here", variables=("event", "async"))
    values = {"event": {"data": {"x": one}}, "async": {"data": {"x": other}}}
    return expression.evaluate(values)


def key_of(source: str, value: Any) -> str:
    return key_text(normalized(cel(source, value)))


@given(pairs())
def test_cel_match_and_python_agree_on_equality(pair: tuple[Any, Any]) -> None:
    one, other = pair
    expected = equal(one, other)
    assert cel("event.data.x == async.data.x", one, other) is expected
    assert cel("event.data.x != async.data.x", one, other) is not expected
    assert cel("event.data.x in [async.data.x]", one, other) is expected
    assert (comparable(one) == comparable(other)) is expected
    key = match_key("data.x", {"data": {"x": one}})
    leaves = leaf_keys({"data": {"x": other}})
    assert key is None or (key in (leaves or ())) is expected


@given(pairs())
def test_keys_of_different_values_differ(pair: tuple[Any, Any]) -> None:
    one, other = pair
    for source in ("event.data.x", "[event.data.x]", "{'a': [event.data.x, 1]}"):
        same = key_of(source, one) == key_of(source, other)
        assert same is equal(one, other), source


@given(pairs(NUMBERS))
def test_strings_of_different_numbers_differ(pair: tuple[Any, Any]) -> None:
    one, other = pair
    joined = "'order-' + string(event.data.x)"
    assert (key_of(joined, one) == key_of(joined, other)) is (one == other)
    if isinstance(one, int):
        assert cel(joined, one) == f"order-{one}"


@given(pairs(NUMBERS), st.sampled_from(["<", "<=", ">", ">="]))
def test_numbers_are_in_the_order_of_python(pair: tuple[Any, Any], sign: str) -> None:
    one, other = pair
    expected = {
        "<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other
    }  # fmt: skip
    assert cel(f"event.data.x {sign} async.data.x", one, other) is expected[sign]


@given(NUMBERS, st.sampled_from(["0", "1", "1.5", "-2", "9007199254740993"]))
def test_number_in_the_text_is_compared_exactly(value: Any, text: str) -> None:
    number = float(text) if "." in text else int(text)
    assert cel(f"event.data.x == {text}", value) is (value == number)
    assert cel(f"event.data.x < {text}", value) is (value < number)
    assert cel(f"{text} >= event.data.x", value) is (number >= value)


@given(pairs(NUMBERS), st.sampled_from("+-*/%"))
def test_arithmetic_is_pythons_or_refused(pair: tuple[Any, Any], sign: str) -> None:
    one, other = pair
    try:
        found = cel(f"event.data.x {sign} async.data.x", one, other)
    except ExpressionError:
        return
    integers = isinstance(one, int) and isinstance(other, int)
    assert isinstance(found, int) is integers
    assert -(2**63) <= found < 2**63 or not integers
    plain: dict[str, Callable[[Any, Any], Any]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        # CEL truncates towards zero, as C does.
        "/": lambda a, b: _quotient(a, b) if integers else a / b,
        "%": lambda a, b: a - b * _quotient(a, b),
    }
    assert found == plain[sign](one, other)


def _quotient(one: int, other: int) -> int:
    quotient = abs(one) // abs(other)
    return quotient if (one < 0) == (other < 0) else -quotient


@pytest.mark.parametrize(
    ("source", "one", "other"),
    [
        ("event.data.x + 1", 10**20, None),
        ("event.data.x * 2.0", 10**20, None),
        ("-event.data.x", 2**63, None),
        ("string(event.data.x) + string([event.data.x][0])", 10**20, None),
        ("size(event.data.x)", 10**20, None),
        ("type(event.data.x) == double", 10**20, None),
        ("event.data.x == 9007199254740992.0", 2**53 + 1, None),
        ("double(event.data.x) == async.data.x", 2**53 + 1, 2.0**53),
        ("event.data.x + 1 == async.data.x", 2**53, 2.0**53),
        ("event.data.x * 3 > 2", 2**62, None),
    ],
)
def test_inexact_number_is_refused(source: str, one: Any, other: Any) -> None:
    with pytest.raises(ExpressionError, match=r"^here: the expression .* failed: "):
        cel(source, one, other)


def test_hexadecimal_number_in_the_text_is_compared_exactly() -> None:
    assert cel("event.data.x == 0x20000000000001", 2.0**53) is False
    assert cel("event.data.x == 0x20000000000001", 2**53 + 1) is True


def test_sign_in_a_literal_is_no_arithmetic() -> None:
    assert cel("event.data.x == -2", 10**20 + 1) is False
    assert cel("-2 == event.data.x", 10**20 + 1) is False
    assert cel("event.data.x in [-1, -2]", 10**20 + 1) is False
    with pytest.raises(ExpressionError, match="calculates"):
        cel("2 - event.data.x > 1", 10**20)


def test_integer_in_the_text_beyond_64_bits_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="compiled"):
        compile_expression("event.data.x == 100000000000000000000", where="here")


def test_exact_number_is_accepted_whatever_its_size() -> None:
    assert cel("event.data.x * 2.0", 1e20) == 2e20
    assert cel("event.data.x + 1", 2**60) == 2**60 + 1
    assert cel("event.data.x > 0.5", 10**20 + 1) is True
    assert cel("event.data.x == 18446744073709551615u", 2**64 - 1) is True
    assert cel("'a-' + event.data.x.name", {"name": "b", "id": 10**20 + 1}) == "a-b"
    assert cel("event.data.x - -2", 5) == 7
    assert cel("event.data.x", 10**20) == 10**20
    assert type(cel("[event.data.x]", 10**20)[0]) is int


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Decimal("0.1"), 0.1, True),
        (Decimal("0.10"), Decimal("0.1"), True),
        (Decimal("0.1"), Decimal("0.10000000000000000001"), False),
        (Decimal("1E+20"), 10**20, True),
        (Decimal("1E+20"), Decimal(10**20 + 1), False),
        (Decimal("-0"), 0, True),
        (Decimal("1E-30"), Decimal("1.0E-30"), True),
        (timedelta(minutes=1), 60, True),
        (timedelta.max, timedelta.max - timedelta(microseconds=1), False),
        ({"b", "a", "c"}, {"c", "b", "a"}, True),
        ((1, 2), [1, 2], True),
        (
            datetime(2024, 1, 1, 12, tzinfo=UTC),
            datetime(2024, 1, 1, 13, tzinfo=timezone(timedelta(hours=1))),
            True,
        ),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00Z", True),
        (datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), False),  # noqa: DTZ001  # without a zone
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=9))), 0, False),
    ],
)
def test_values_that_json_lacks_agree_too(one: Any, other: Any, same: bool) -> None:
    for a, b in ((one, other), ([one], [other]), ({"k": one}, {"k": other})):
        assert cel("event.data.x == async.data.x", a, b) is same
        assert (comparable(a) == comparable(b)) is same
        assert (key_of("event.data.x", a) == key_of("event.data.x", b)) is same


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Decimal("NaN"), Decimal("1E+2000"), b"x"]
)
@pytest.mark.parametrize("source", ["event.data.x", "event.data.x == async.data.x"])
def test_value_that_json_lacks_is_refused(source: str, value: Any) -> None:
    with pytest.raises(ExpressionError, match="JSON"):
        cel(source, value, value)
