"""JSON from HTTP requests: limits first, and linear time at every size."""

from __future__ import annotations

import io
from functools import partial

import pytest
from django.core.management import CommandError, call_command

from durable_jobs import http_input
from durable_jobs.exceptions import (
    FilterError,
    LimitExceeded,
    PayloadError,
    RemoteFailed,
)
from durable_jobs.queries import json_paths
from durable_jobs.remote import protocol
from durable_jobs.remote.client import MAX_REPLY, Reply
from durable_jobs.remote.protocol import SDK
from tests.hostile import MEGABYTE, PATTERNS, body, in_linear_time

SIZES = (10_000, MEGABYTE, MAX_REPLY)


def refusal(raw: bytes) -> Exception | None:
    try:
        http_input.read_json(raw, what="it", most=len(raw))
    except (LimitExceeded, PayloadError) as error:
        return error
    return None


@pytest.mark.parametrize("pattern", PATTERNS)
def test_json_from_outside_is_refused_in_linear_time(pattern):
    for size in SIZES:
        raw = body(pattern, size)
        assert in_linear_time(size, partial(refusal, raw)) is not None
        for text in (b"[" + raw, b'"' + raw, b'{"a": [' + raw + b'"]}'):
            in_linear_time(size, partial(refusal, text))


def test_valid_json_from_outside_is_read_in_linear_time():
    for unit in (b"{}", b"[]", b'""', b"0", b"1.5", b'"\\\\"'):
        raw = b"[" + b",".join([unit] * (http_input.MOST_VALUES // 2)) + b"]"
        assert in_linear_time(4 * MEGABYTE, partial(refusal, raw)) is None


def test_size_is_compared_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(http_input, "_decode", None)
    with pytest.raises(LimitExceeded, match="at most 10 bytes, got 11"):
        http_input.read_json(b"x" * 11, what="it", most=10)
    with pytest.raises(LimitExceeded, match="at most 250000 values"):
        http_input.read_json(b"[" * 250_001, what="it", most=MEGABYTE)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[NaN]", "NaN is not allowed"),
        (b"[-Infinity]", "-Infinity is not allowed"),
        (b"[1e400]", "finite"),
        (b"[" + b"9" * 4001 + b"]", "4,000 digits"),
        (b"9" * 100_000, "not JSON"),
        (b'["\\u0000"]', "NUL"),
        (b'["\\ud800"]', "surrogate"),
        (b"[" * 101 + b"]" * 101, "100 levels"),
        (b"[" * 100_000 + b"]" * 100_000, "too deep"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_json_that_cannot_be_stored_is_refused(raw, reason):
    with pytest.raises(PayloadError, match=reason):
        http_input.read_json(raw, what="it", most=MEGABYTE)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_responses_of_remote_apps_take_linear_time(pattern):
    def read(status: int, raw: bytes) -> str:
        try:
            protocol.read(protocol.unwrapped(Reply(status, {SDK: "py"}, raw)))
        except RemoteFailed as error:
            return type(error).__name__
        return ""

    raw = body(pattern, MAX_REPLY)
    for status in (200, 201, 206, 400, 500):
        kind = in_linear_time(MAX_REPLY, partial(read, status, raw))
        blank = pattern == "blanks" and status == 200  # which is null
        assert blank == (kind == "")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_values_of_the_where_filter_take_linear_time(pattern):
    def value(text: str) -> object:
        try:
            return json_paths.path(f"data.a={text}")[2]
        except FilterError:
            return None

    for size in (json_paths.MOST_BYTES, MEGABYTE):
        text = body(pattern, size).decode("latin-1")
        found = in_linear_time(MEGABYTE, partial(value, text))
        assert found in (text, None)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_data_of_the_send_command_takes_linear_time(pattern, monkeypatch):
    def send(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        with pytest.raises(CommandError, match="--data to be JSON"):
            call_command("durable_send", "tests/x", "--data", "-")

    for size in (2**19, MEGABYTE):
        text = body(pattern, size).decode("latin-1")
        in_linear_time(MEGABYTE, partial(send, text))
