"""Match keys of scalars, by which events find waits."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs.exceptions import ConfigurationError
from durable_jobs.serialization.match_keys import (
    MOST_LEAVES,
    check_match_path,
    leaf_keys,
    match_key,
)

UUID_TEXT = "6f9619ff-8b86-d011-b42d-00c04fc964ff"


class Kind(StrEnum):
    PLAIN = "plain"


SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3)
    | st.text("ab=\"1", max_size=3) | st.sampled_from([1e20, 10**20, 2**64])
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "a-b", "a.b", "", 'a="', "é"])
DATA = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=2),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
PATHS = st.lists(st.sampled_from(["a", "b", "a-b", "é"]), min_size=1, max_size=3).map(
    lambda names: ".".join(["data", *names])
)


def at(path: str, value: Any) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@given(PATHS, DATA, DATA)
def test_key_is_among_the_leaves_just_when_the_scalars_are_equal(
    path: str, one: Any, other: Any
) -> None:
    left, right = at(path, {"data": one}), at(path, {"data": other})
    comparable = not isinstance(left, list | dict) and left is not None
    same_kind = isinstance(left, bool) == isinstance(right, bool)
    key = match_key(path, {"data": one})
    assert (key is not None) == comparable
    leaves = leaf_keys({"data": other})
    assert leaves is not None
    assert (key in leaves) == (comparable and left == right and same_kind)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (7, 7.0), (UUID(UUID_TEXT), UUID_TEXT), (Decimal("40.00"), 40), (10**20, 1e20),
        (Decimal("0.5"), 0.5), (Kind.PLAIN, "plain"), (date(2024, 1, 1), "2024-01-01"),
        (
            datetime(2024, 1, 1, 12, tzinfo=UTC),
            datetime(2024, 1, 1, 13, tzinfo=timezone(timedelta(hours=1))),
        ),
    ],
)  # fmt: skip
def test_scalars_that_mean_the_same_match(left: Any, right: Any) -> None:
    key = match_key("data.x", {"data": {"x": left}})
    assert key is not None
    assert len(key) == 40
    assert leaf_keys({"data": {"x": right}}) == {key}


@pytest.mark.parametrize(
    "value", [None, [], {}, (1,), b"x", "x" * 2000, object(), 10**4000, "\0", 1e999]
)
def test_value_that_is_no_scalar_has_no_key(value: Any) -> None:
    assert match_key("data.x", {"data": {"x": value}}) is None
    assert leaf_keys({"data": {"x": value}}) == set()


def test_missing_value_has_no_key() -> None:
    assert match_key("data.x.y", {"data": {"x": 5}}) is None
    assert match_key("data.x", {"data": None}) is None
    assert match_key("data.x", {}) is None


def test_leaves_beyond_the_limit_are_not_listed() -> None:
    most = {f"k{number}": number for number in range(MOST_LEAVES - 1)}
    leaves = leaf_keys({"data": most})
    assert leaves is not None
    assert len(leaves) == MOST_LEAVES - 1
    assert leaf_keys({"data": {**most, "one": "more"}}) is None


def test_leaves_are_found_as_deep_as_paths_go_and_no_deeper() -> None:
    deepest = "data." + ".".join("x" * 31)
    assert check_match_path(deepest, "f") == deepest
    data: Any = 5
    for _ in range(31):
        data = {"x": data}
    assert leaf_keys({"data": data}) == {match_key(deepest, {"data": data})}
    assert leaf_keys({"data": {"x": data}}) == set()
    with pytest.raises(ConfigurationError):
        check_match_path(deepest + ".x", "f")


@pytest.mark.parametrize("path", ["data.x", "data.order_id", "data.a.b-c.d1", "data.é"])
def test_path_is_data_and_names(path: str) -> None:
    assert check_match_path(path, "f") == path


@pytest.mark.parametrize(
    "path",
    ["", "data", "data.", "order_id", "event.data.x", "data..x", "data.x[0]", "data.x ",
     "data.x\n", None, 5],
)  # fmt: skip
def test_invalid_path_is_no_path(path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^function f: match .*expected"):
        check_match_path(path, "function f")
