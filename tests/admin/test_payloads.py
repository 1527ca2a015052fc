"""Stored JSON as HTML: exact, escaped and truncated."""

from __future__ import annotations

import json
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.utils.html import strip_tags

from durable_jobs import serialization
from durable_jobs.admin.payloads import MAX_PAYLOAD_LENGTH, error, payload


def shown(value):
    return text_of(serialization.dumps(value, what="a value"))


def html_of(text):
    html = payload(text, "Data")
    assert html is not None
    return html


def text_of(text):
    return unescape(strip_tags(html_of(text)))


def test_short_values_stay_on_one_line():
    assert shown({"a": 1, "b": True}) == '{"a": 1, "b": true}'
    assert shown({"a": 1, "b": [None, "x"]}).count("\n") == 3
    assert shown([1, 2, 3]) == "[1, 2, 3]"
    assert shown({}) == "{}"
    assert shown(None) == "null"


def test_long_values_are_indented():
    value = {"rows": ["x" * 30] * 4, "end": {"deep": [[1]]}}
    assert json.loads(shown(value)) == value
    assert '\n    "xxx' in shown(value)


@pytest.mark.parametrize("text", ["1.10", "123456789012345678901234567890", "9" * 5000])
def test_numbers_are_shown_as_they_are_stored(text):
    assert text_of(text) == text


def test_values_unknown_to_json_are_named():
    assert shown({"total": Decimal("19.90")}) == '{"total": decimal "19.90"}'


@pytest.mark.parametrize(
    "text", ["{", "", "[" * 50_000, "[" * 900 + "]" * 900, "nonsense <b>"]
)
def test_unreadable_value_is_shown_as_stored(text):
    assert unescape(html_of(text)).startswith('<pre class="durable-payload"')
    assert unescape(html_of(text)).endswith(f">{text}</pre>")


def test_scrolling_block_has_a_name_and_is_in_the_tab_order():
    block = ' tabindex="0" role="group" aria-label="Data"'
    assert block in html_of(json.dumps(["a line of some length"] * 30))
    assert block in html_of("x" * 1000)
    assert "tabindex" not in html_of('{"a": 1}')


def test_payload_is_truncated_to_a_page():
    html = html_of('"' + "<" * MAX_PAYLOAD_LENGTH + '"')
    assert "The first 100,000 characters." in html
    assert "<<" not in html


def test_deep_nesting_costs_no_width():
    tree: list[Any] = list(range(10_000))
    for _ in range(95):
        tree = [tree]
    assert len(html_of(json.dumps(tree))) < 1_000_000


def test_missing_payload_has_no_section():
    assert payload(None, "Data") is None
    assert error(None) is None


@pytest.mark.parametrize("text", ["[]", '"x"', "{", '{"type": 1}'])
def test_error_of_another_form_is_shown_as_any_payload(text):
    assert error(text) == payload(text, "Error")


def test_error_needs_no_traceback():
    assert strip_tags(str(error('{"type": "E", "message": "m"}'))) == "E m"
