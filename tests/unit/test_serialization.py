"""The codec: stored values come back equal, in value and in type."""

# ruff: noqa: DTZ001, DTZ901 - naive datetimes are values too

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic
import pytest
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization import canonical, dumps, from_tree, loads, to_tree
from project.shop.models import Order, Tenant


class Color(enum.Enum):
    RED = "r"
    BLUE = (1, 2)


class Size(enum.StrEnum):
    SMALL = "s"


class Level(enum.IntEnum):
    HIGH = 3


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any


@dataclasses.dataclass
class Item:
    sku: str
    price: Decimal
    tags: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True)
class Basket:
    items: tuple[Item, ...]
    at: datetime
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", len(self.items))


@dataclasses.dataclass
class Doubling:
    number: int

    def __post_init__(self) -> None:
        self.number *= 2


@dataclasses.dataclass
class Seeded:
    seed: dataclasses.InitVar[int]
    number: int = 0

    def __post_init__(self, seed: int) -> None:
        self.number = seed


class Address(pydantic.BaseModel):
    street: str
    since: date | None = None


class Customer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    name: str
    address: Address
    born: date
    codes: tuple[int, ...] = ()
    _seen: int = pydantic.PrivateAttr(default=0)


class Outer:
    class Inner(enum.Enum):
        ONE = 1


ZONES = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"]

VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**30,
    10**4000 - 1, -(10**4000) + 1,
    0.0, -0.0, 0.1, 1.0, 1e15, 1e16, 1e17, 1e20, 1e22, 1e300, 5e-324, 1e-4, 1e-5,
    123456789012345.6, sys.float_info.max, sys.float_info.min, -1e16, -1e-7,
    "", "plain", "Zoë 🎈", "\u2028", "\\u0000", "\x01\x7f", "$durable", '"$durable"',
    [], [1, [2, [3]]], (), (1,), (1, (2, [3])), {}, {"a": {"b": []}}, {"": 1},
    set(), {1, 2}, {"b", "a"}, frozenset({(1, 2), (3,)}), {1, "1", None, 2.5},
    {1: "a", "1": "b"}, {(1, 2): {3: 4}}, {None: 1}, {True: 1}, {2.5: 1},
    {"$durable": "int"}, {"$durable": "model", "value": ["a.b", 1, None]},
    [{"$durable": {"$durable": 1e20}}], {"a": {"$durable": "x"}}, {"value": 1},
    datetime(2024, 2, 29, 12, 30, 1, 5), datetime(2024, 2, 29, tzinfo=UTC),
    datetime(1, 1, 1), datetime.max, datetime(2024, 1, 1, fold=1),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30, seconds=1))),
    datetime(2025, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Paris")),
    datetime(2025, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1),
    date(2024, 2, 29), time(1, 2, 3, 4), time(1, tzinfo=UTC),
    time(1, tzinfo=ZoneInfo("Europe/Paris")),
    timedelta(0), timedelta(-1, 5, 7), timedelta.max, timedelta.min,
    Decimal("1.50"), Decimal("-0"), Decimal("1E+999999"), Decimal("0E-10"),
    UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff"), b"", b"\x00\xff" * 50,
    Color.RED, Color.BLUE, Size.SMALL, Level.HIGH, Access.READ | Access.WRITE,
    Access(0), Outer.Inner.ONE, Order.Status.PAID,
    Point(1, (2, 3)), Item("a", Decimal("2.50"), {"x"}), Doubling(4), Seeded(9),
    Basket((Item("a", Decimal(1)),), datetime(2024, 1, 1, tzinfo=UTC)),
    Address(street="x"), Customer(
        name="Zoë", address=Address(street="y", since=date(2020, 1, 1)),
        born=date(2000, 1, 1), codes=(1, 2), extra_field={"a": (1,)},
    ),
]  # fmt: skip


def same(left: Any, right: Any) -> bool:
    """Return whether two values have equal contents and types at every level."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, dict):
        keys = {key: key for key in right}
        return all(
            same(key, keys[key]) and same(item, right[key])
            for key, item in left.items()
        )
    if isinstance(left, list | tuple):
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, datetime | time):
        zones = [getattr(value.tzinfo, "key", None) for value in (left, right)]
        return zones[0] == zones[1] and left.fold == right.fold
    if isinstance(left, Decimal):
        return str(left) == str(right)
    return True


def like_jsonb(tree: Any) -> Any:
    """Transform a tree as PostgreSQL does: numbers are numeric, keys are sorted."""

    def number(text: str) -> Any:
        value = Decimal(text)
        return float(value) if "." in text else int(value)

    def ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(sorted(pairs, key=lambda pair: (len(pair[0]), pair[0])))

    return json.loads(
        json.dumps(tree, allow_nan=False), parse_float=number, object_pairs_hook=ordered
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXT | st.just("$durable"), inner, max_size=4)
    ),
    max_leaves=12,
)
HASHABLE = st.recursive(
    st.none() | st.integers() | st.text("abc") | st.dates() | st.uuids()
    | st.decimals(allow_nan=False, allow_infinity=False) | st.binary()
    | st.sampled_from([*Color, *Size]) | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.sampled_from(ZONES).map(ZoneInfo)),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ANYTHING = st.recursive(
    JSON | HASHABLE,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner)
    | st.dictionaries(HASHABLE, inner, max_size=3) | st.sets(HASHABLE, max_size=3)
    | st.builds(Point, st.integers(), inner),
    max_leaves=10,
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_value_round_trips_with_its_type(value: Any) -> None:
    for held in (value, [value], {"key": (value, value)}):
        text = dumps(held, what="value")
        assert same(loads(text), held)
        assert same(loads(text.encode()), held)
        assert same(from_tree(to_tree(held, what="value")), held)
        assert same(from_tree(like_jsonb(to_tree(held, what="value"))), held)


@given(ANYTHING)
def test_any_value_round_trips(value: Any) -> None:
    text = dumps(value, what="value")
    assert same(loads(text), value)
    assert same(from_tree(like_jsonb(json.loads(text))), value)
    assert "\\u0000" not in text.replace("\\\\", "")


@given(JSON)
def test_text_and_tree_agree(value: Any) -> None:
    assert json.loads(dumps(value, what="value")) == to_tree(value, what="value")


@given(JSON)
def test_json_from_outside_is_data_and_never_a_tag(value: Any) -> None:
    text = json.dumps({"$durable": "enum", "value": value})
    assert loads(dumps(json.loads(text), what="data")) == json.loads(text)


def test_plain_values_are_plain_json() -> None:
    value = {"id": 7, "name": "Zoë", "tags": ["a", 1.5, None, True]}
    assert dumps(value, what="value") == (
        '{"id":7,"name":"Zoë","tags":["a",1.5,null,true]}'
    )
    assert to_tree(value, what="value") == value


def test_equal_sets_are_equal_texts() -> None:
    words = [f"word {number}" for number in range(50)]
    left = set(words)
    right: set[str] = set()
    for word in reversed(words):
        right |= {word}
    assert dumps(left, what="x") == dumps(right, what="x")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (mark_safe("<b>"), "<b>"),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        ({Size.SMALL: 1}, {Size.SMALL: 1}),
        ({mark_safe("k"): 1}, {"k": 1}),
        (gettext_lazy("Yes"), "Yes"),
        (type("Int", (int,), {})(5), 5),
        (type("Float", (float,), {})(1e20), 1e20),
        (type("List", (list,), {})([1]), [1]),
        (type("Moment", (datetime,), {})(2024, 1, 2, 3), datetime(2024, 1, 2, 3)),
        (type("Bytes", (bytes,), {})(b"x"), b"x"),
    ],
)
def test_subclass_of_a_builtin_becomes_the_builtin(value: Any, stored: Any) -> None:
    assert same(loads(dumps(value, what="value")), stored)
    assert same(loads(dumps([value], what="value")), [stored])


class Opaque:
    pass


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def nested(levels: int, around: Any = None) -> Any:
    for _ in range(levels):
        around = [around]
    return around


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Opaque(), "type Opaque cannot be stored; expected None, bool"),
        (Opaque, "class Opaque"), (lambda: 1, "function"), (range(3), "range"),
        (float("nan"), "finite"), (float("inf"), "finite"), (-math.inf, "finite"),
        (Decimal("NaN"), "finite"), (Decimal("Infinity"), "finite"),
        ("a\0b", "NUL"), ("\ud800", "surrogate"), ("é\udfff", "surrogate"),
        (10**4000, "4,000 digits"), (-(10**4000), "4,000 digits"),
        (1j, "complex"),
        (bytearray(b"x"), "bytearray"), (ValueError("x"), "ValueError"),
        (Order(), "an unsaved instance"), (Order(pk=5), "an unsaved instance"),
        (Item, "class Item"),
        (Color, "class Color"), (iter([]), "list_iterator"),
    ],
)  # fmt: skip
def test_unsupported_value_is_refused_with_its_place(value: Any, reason: str) -> None:
    with pytest.raises(PayloadError, match=rf"^data: .*{reason}"):
        dumps(value, what="data")
    with pytest.raises(PayloadError) as caught:
        to_tree({"items": [1, {"file": value}]}, what="data")
    assert caught.value.message.startswith("data.items[1].file: ")


@pytest.mark.parametrize("value", [nested(101), looped(), nested(5000)])
def test_too_deep_or_recursive_value_is_refused(value: Any) -> None:
    for write in (dumps, to_tree):
        with pytest.raises(PayloadError, match="100 levels") as caught:
            write(value, what="data")
        assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": ({1j},)}, "data.a[0][0]"),
        ({1: 1j}, "data[1]"),
        ({(1, 2): 1j}, "data['(1, 2)']"),
        ({"my key": 1j}, "data['my key']"),
        ({"a\0": 1}, "data['a\\x00']"),
        ({"a": {1j: 1}}, "data.a['1j']"),
        ([Point(1, 1j)], "data[0][1]"),
        (Item("x", 1j), "data.price"),
        (Address.model_construct(street=cast(Any, 1j)), "data.street"),
    ],
)
def test_place_follows_every_kind_of_container(value: Any, place: str) -> None:
    with pytest.raises(PayloadError) as caught:
        dumps(value, what="data")
    assert caught.value.message.startswith(f"{place}: ")


def test_place_in_a_message_is_readable() -> None:
    with pytest.raises(PayloadError, match=r"^the result of 'charge', at items\[0\]: "):
        dumps({"items": [1j]}, what="the result of 'charge'")


def test_hundred_levels_are_fine() -> None:
    assert loads(dumps(nested(100), what="value")) == nested(100)
    tuples = ()
    for _ in range(99):
        tuples = (tuples,)  # type: ignore[assignment]
    assert loads(dumps(tuples, what="value")) == tuples


def test_short_stack_is_no_recursion_error() -> None:
    def at_depth(depth: int) -> None:
        if depth:
            at_depth(depth - 1)
        else:
            dumps(nested(90, Color.RED), what="value")

    with pytest.raises((PayloadError, RecursionError)):
        at_depth(sys.getrecursionlimit() - 80)
    with pytest.raises(PayloadError):
        loads("[" * 100_000)
    with pytest.raises(PayloadError):
        loads('[{"$durable":' * 50_000)


def test_value_that_is_too_large_names_the_size_the_limit_and_the_setting() -> None:
    assert dumps("x" * 8, what="x", limit=10) == '"xxxxxxxx"'
    with pytest.raises(PayloadError) as caught:
        dumps("é" * 5, what="the event", limit=11, limit_setting="MAX_EVENT_BYTES")
    assert caught.value.message == (
        "the event is 12 bytes as stored: expected at most 11, the setting "
        "MAX_EVENT_BYTES."
    )


def test_class_inside_a_function_is_refused_when_written() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    with pytest.raises(PayloadError, match=r"Local.*top of a module"):
        dumps(Local(1), what="value")


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"$durable": "enum", "value": ["no_such_module:X", "A"]}, "not imported"),
        ({"$durable": "enum", "value": ["antigravity:X", "A"]}, "import that module"),
        ({"$durable": "enum", "value": ["os:system", "A"]}, "no such class"),
        ({"$durable": "enum", "value": ["os:path.join", "A"]}, "no such class"),
        ({"$durable": "enum", "value": ["subprocess:Popen", "A"]}, "expected an enum"),
        ({"$durable": "enum", "value": [f"{__name__}:Color", "PINK"]}, "RED, BLUE"),
        ({"$durable": "dataclass", "value": ["subprocess:Popen", {}]}, "a dataclass"),
        ({"$durable": "pydantic", "value": ["subprocess:Popen", {}, []]}, "pydantic"),
        ({"$durable": "namedtuple", "value": ["builtins:tuple", []]}, "named tuple"),
        ({"$durable": "flag", "value": ["builtins:int", 1]}, "expected a flag"),
        ({"$durable": "dataclass", "value": [f"{__name__}:Item", {}]}, "lacks.*'sku'"),
        ({"$durable": "pydantic", "value": [f"{__name__}:Address", {}, []]}, "lacks"),
        ({"$durable": "pickle", "value": "x"}, "'pickle', which this version"),
        ({"$durable": ["x"], "value": "x"}, "expected one of"),
        ({"$durable": "int"}, "expected one of"),
        ({"$durable": "int", "value": "x"}, "stored int cannot be read"),
        ({"$durable": "date", "value": 5}, "stored date cannot be read"),
        ({"$durable": "bytes", "value": "*"}, "stored bytes cannot be read"),
        ({"$durable": "set", "value": [[]]}, "stored set cannot be read"),
        ({"$durable": "datetime", "value": ["2024-01-01", "No/Zone", 0]}, "datetime"),
        ({"$durable": "model", "value": ["shop.nothing", 1, None]}, "installed"),
        ({"$durable": "model", "value": "x"}, "reference"),
        ({"$durable": "model", "value": ["x", [], None]}, "reference"),
    ],
)  # fmt: skip
def test_unreadable_tags_raise_with_the_reason(tree: Any, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        from_tree([tree])
    with pytest.raises(PayloadError, match=reason):
        loads(json.dumps([tree]))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", '"a" "b"', "1" * 5000, b"\xff"]
)
def test_text_that_is_not_ours_is_a_payload_error(text: Any) -> None:
    with pytest.raises(PayloadError):
        loads(text)


def test_newer_fields_get_their_defaults_and_dropped_ones_are_ignored() -> None:
    tree = to_tree(
        [Item("a", Decimal(1)), Address(street="x"), Seeded(9)], what="value"
    )
    del tree[0]["value"][1]["tags"]
    tree[0]["value"][1]["gone"] = 1
    del tree[1]["value"][1]["since"]
    tree[1]["value"][1]["gone"] = 1
    del tree[2]["value"][1]["number"]
    item, address, seeded = from_tree(tree)
    assert item == Item("a", Decimal(1))
    assert address == Address(street="x")
    assert seeded.number == 0


def test_pydantic_models_keep_set_and_private_fields() -> None:
    customer = Customer(name="a", address=Address(street="b"), born=date(2000, 1, 1))
    customer._seen = 3
    back = loads(dumps(customer, what="value"))
    assert back == customer
    assert back._seen == 3
    assert back.model_fields_set == {"name", "address", "born"}


def test_values_that_were_never_valid_round_trip() -> None:
    odd = Address.model_construct(street=cast(Any, 5))
    assert loads(dumps(odd, what="value")).street == 5


@pytest.fixture
def tenant(db: None) -> Tenant:
    return Tenant.objects.create(name="first")


def test_saved_instance_is_a_reference_that_is_loaded_fresh(tenant: Tenant) -> None:
    text = dumps({"tenant": tenant}, what="value")
    assert "first" not in text
    Tenant.objects.update(name="second")
    back = loads(text)["tenant"]
    assert type(back) is Tenant
    assert back == tenant
    assert back.name == "second"


def test_lazy_instance_and_textual_key_are_references_too(
    tenant: Tenant,
) -> None:
    lazy = SimpleLazyObject(lambda: tenant)
    assert type(loads(dumps(lazy, what="value"))) is Tenant
    textual = Tenant(pk="77", name="third")
    textual.save()
    assert loads(dumps(textual, what="value")).pk == 77


@pytest.mark.django_db(transaction=True)
def test_references_are_loaded_in_one_query(
    tenant: Tenant, django_assert_num_queries: Any
) -> None:
    orders = [Order.objects.create(tenant=tenant, total=1) for _ in range(5)]
    text = dumps({"orders": [*orders, orders[0]], "one": (orders[1],)}, what="value")
    with django_assert_num_queries(1):
        back = loads(text)
    assert back == {"orders": [*orders, orders[0]], "one": (orders[1],)}


def test_reference_to_a_deleted_row_raises_does_not_exist(
    tenant: Tenant,
) -> None:
    text = dumps(tenant, what="value")
    Tenant.objects.all().delete()
    with pytest.raises(Tenant.DoesNotExist, match="was deleted"):
        loads(text)


def test_deleted_instance_is_refused(tenant: Tenant) -> None:
    tenant.delete()
    with pytest.raises(PayloadError, match="save it first"):
        dumps(tenant, what="value")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0), (0, -0.0), (10**20, 1e20), (2**63, float(2**63)),
        ({"a": 1, "b": 2.0}, {"b": 2, "a": 1}), ([1.0], [1]), ({1, 2}, {2, 1}),
        ({1: 2, 3: 4}, {3: 4, 1: 2}), ("x", mark_safe("x")),
    ],
)  # fmt: skip
def test_equal_keys_have_one_canonical_form(left: Any, right: Any) -> None:
    assert canonical(left) == canonical(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, True), (1, "1"), (None, "null"), (0.1, 0.2), (1e-300, 0), ("a", ["a"])],
)
def test_different_keys_have_different_forms(left: Any, right: Any) -> None:
    assert canonical(left) != canonical(right)


def test_invalid_key_is_refused_by_name() -> None:
    with pytest.raises(PayloadError, match=r"^the key: "):
        canonical(float("nan"), what="the key")
