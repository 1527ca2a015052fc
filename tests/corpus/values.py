"""Hostile values, errors, references and texts, as hypothesis strategies."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from hypothesis import strategies as st

from durable_jobs.serialization.tag_format import TAG, VALUE


class Color(enum.Enum):
    RED = "red"
    DEEP = (1, "two")


class Text(str):
    pass


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Held:
    value: Any
    more: list[Any] = field(default_factory=list)


class Rude:
    """An object whose every method raises."""

    def _no(self, *args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError("an object that answers nothing")

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = _no
    __getattr__ = __int__ = __float__ = __getitem__ = __reduce_ex__ = _no


# Values

#: NUL, lone surrogates, tags of the codec, and strings like numbers or markup.
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "\0", "a\0b", "\ud800", "\udfff\ud800", TAG, VALUE, "1e999", "NaN", "\u2028",
     "<script>", "'; DROP TABLE", "{{ 1 }}", "\ufeff", "x" * 5_000, "ä" * 3_000]
)  # fmt: skip
NUMBERS = (
    st.integers()
    | st.floats()
    | st.decimals(allow_nan=True)
    | st.builds(lambda digits, sign: sign * 10**digits, st.integers(0, 4_100),
                st.sampled_from([1, -1]))
    | st.sampled_from([-0.0, 5e-324, 1e308, 2**53 + 1, 2**63, Decimal("1E+400")])
)  # fmt: skip
FAR = timezone(timedelta(hours=-23, minutes=-59))
ZONES = st.timezones() | st.none() | st.just(FAR)
SCALARS = (
    st.none() | st.booleans() | NUMBERS | TEXTS | st.uuids() | st.binary(max_size=20)
    | st.datetimes(timezones=ZONES) | st.dates() | st.times() | st.timedeltas()
    | st.sampled_from([*Color]) | TEXTS.map(Text) | st.builds(Rude) | st.builds(object)
)  # fmt: skip


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hashable = st.integers() | TEXTS | st.tuples(st.integers(), TEXTS) | st.booleans()
    return (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | st.integers(), inner, max_size=4)
        | st.dictionaries(st.sampled_from([TAG, VALUE, "model", "int"]), inner)
        | st.tuples(inner, inner)
        | st.sets(hashable, max_size=4)
        | st.frozensets(hashable, max_size=4)
        | st.builds(Pair, inner, inner)
        | st.builds(Held, inner)
        | st.dictionaries(TEXTS, inner, max_size=2).map(OrderedDict)
    )


def _nested(levels: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    return value


def _circle(kind: str) -> Any:
    inner: Any = [] if kind == "list" else {}
    if kind == "list":
        inner.append([inner])
    else:
        inner["again"] = {"inner": inner}
    return inner


VALUES = (
    st.recursive(SCALARS, _containers, max_leaves=12)
    | st.builds(_nested, st.integers(90, 110) | st.just(5_000),
                st.sampled_from(["list", "dict"]))
    | st.builds(_circle, st.sampled_from(["list", "dict"]))
)  # fmt: skip
#: Valid data of a run or an event.
PAYLOADS = st.dictionaries(TEXTS, VALUES, max_size=3)


# Stored trees, which another version or a user may have written

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip
LABELS = st.sampled_from(
    ["shop.order", "shop.tenant", "shop.nothing", "nothing", "", "a.b.c",
     "durable_jobs.run", "auth.user", "shop.Order", "."]
)  # fmt: skip
KEYS = TREES | st.sampled_from(["1", "x", -1, 2**70, "1e5", "\ud800", [], {}])
ALIASES = st.none() | st.sampled_from(["default", "other", "", "nothing"]) | TREES
REFERENCES = st.builds(
    lambda label, key, alias: {TAG: "model", VALUE: [label, key, alias]},
    LABELS | TREES, KEYS, ALIASES,
) | st.builds(lambda value: {TAG: "model", VALUE: value}, TREES)  # fmt: skip
KINDS = st.sampled_from(
    ["int", "float", "tuple", "set", "frozenset", "dict", "datetime", "date", "time",
     "timedelta", "decimal", "uuid", "bytes", "enum", "flag", "namedtuple",
     "dataclass", "pydantic", "model", "nothing"]
)  # fmt: skip
CLASSES = st.sampled_from(
    ["os:system", "tests.corpus.values:Held", "tests.corpus.values:Color", "a:b", "",
     "builtins:object", "builtins:dict", "subprocess:Popen", "tests.corpus.values:Pair",
     "durable_jobs.models.runs:Run", "django.conf:settings"]
)  # fmt: skip
TAGGED = (
    REFERENCES
    | st.builds(lambda kind, value: {TAG: kind, VALUE: value}, KINDS | TREES, TREES)
    | st.builds(lambda kind, name, value: {TAG: kind, VALUE: [name, value]},
                KINDS, CLASSES, TREES)
    | st.builds(lambda value, more: {TAG: "int", VALUE: value, "more": more},
                TREES, TREES)
)  # fmt: skip
STORED = st.recursive(
    TAGGED | TREES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(lambda kind, value: {TAG: kind, VALUE: value}, KINDS, inner)
    ),
    max_leaves=6,
)


# Bodies of requests

FRAGMENTS = st.sampled_from(
    [b'"\\', b'"', b"\\", b'"a', b"[[", b'{"a":', b"[]", b"1e", b"-", b"\xff", b"\x00",
     b"NaN,", b"Infinity", b'"\\u', b'"\\ud800"', b"{", b"}", b"]", b",", b":", b"\n",
     b"1" * 50, b"0x1", b"true", b"nul", b"/*", b"\xef\xbb\xbf", b'{"name":"a/b"}\n']
)  # fmt: skip
REQUESTS = TREES | st.fixed_dictionaries(
    {},
    optional={
        "name": TREES | st.just("tests/one"),
        "data": TREES | STORED,
        "id": TREES,
        "ts": TREES | st.just("2026-03-04T12:00:00Z"),
        "user": STORED,
        "v": TREES,
        "step": TREES,
        "message": TREES,
        "error_type": TREES,
        "key": TREES,
        "run_after": TREES,
        "priority": TREES,
        "filter": TREES,
        "action": TREES,
        "reason": TREES,
        "from_step": TREES,
    },
)


@st.composite
def bodies(draw: Callable[[Any], Any]) -> bytes:
    """Draw valid JSON, damaged JSON, and other bytes."""
    kind = draw(st.sampled_from(["json", "damaged", "fragments", "bytes"]))
    if kind == "bytes":
        return bytes(draw(st.binary(max_size=200)))
    if kind == "fragments":
        parts = draw(st.lists(FRAGMENTS, min_size=1, max_size=6))
        return b"".join(parts) * int(draw(st.sampled_from([1, 3, 200])))
    text = json.dumps(draw(REQUESTS)).encode()
    if kind == "damaged":
        at, cut = draw(st.integers(0, len(text))), draw(st.integers(0, 5))
        return text[:at] + bytes(draw(FRAGMENTS)) + text[at + cut :]
    return text


# Expressions

PIECES = st.sampled_from(
    ["event", "async", ".data", ".x", "['x']", "[0]", ".x.y", "event.data.x", "1", "-1",
     "0.5", "9007199254740993", "1u", "0x1F", "'a'", '"b"', "r'\\d'", "b'c'", "true",
     "null", "==", "!=", "<", ">=", "&&", "||", "!", "?", ":", "+", "-", "*", "/", "%",
     "in", "(", ")", "[", "]", "{", "}", ",", " ", "has(event.data.x)", "size(", "//",
     "string(event.data.x)", ".exists(i, i == 1)", ".all(i, true)", ".map(i, i)", "`a`",
     "timestamp(", "duration('1s')", ".matches('(a+)+$')", "\n", "é", "\0", "type(",
     ".startsWith('a')", "event.data[event.data.x]", "dyn(", "1 / 0"]
)  # fmt: skip
EXPRESSIONS = st.lists(PIECES, min_size=1, max_size=10).map("".join)
