"""The Inngest serve protocol, version 2: requests and replies."""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from durable_jobs import clock, ids
from durable_jobs.definitions.names import check_name
from durable_jobs.exceptions import (
    ConfigurationError,
    LimitExceeded,
    NonRetriableError,
    PayloadError,
    RemoteFailed,
)
from durable_jobs.http_input import read_json
from durable_jobs.remote.client import MAX_REPLY, Reply
from durable_jobs.remote.errors import bad, failure
from durable_jobs.remote.signing import HEADER

SDK = "x-inngest-sdk"
NO_RETRY = "x-inngest-no-retry"
VERSION = "x-inngest-req-version"
#: From this version on, the app is called once when all of several steps have ended.
COALESCING = 2
#: Before the first reply: the app chooses the version.
UNKNOWN = -1
#: The step id of a call for the function itself.
ANY_STEP = "step"
#: The status codes of replies with results of the function or its steps.
RESULTS = (200, 206)
HASH = re.compile(r"[0-9a-f]{40}")
#: The name of a step for which the app sends no name.
UNNAMED = re.compile(r"#[0-9a-f]{40}")
#: The most characters of an error's data besides its message and stack.
MAX_MORE = 64 * 1024
#: The units of Go's durations, in microseconds.
UNITS = {
    "ns": 0.001,
    "us": 1,
    "µs": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ns|us|µs|ms|s|m|h|d|w)")
#: The limits of a retry time that an app requests.
EARLIEST, LATEST = timedelta(seconds=1), timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Op:
    """A step that the app has reached, planned or run. ``kind`` is in lower case."""

    kind: str
    id: str
    name: str
    label: str
    options: Mapping[str, Any]
    data: Any = None
    error: RemoteFailed | None = None

    @property
    def races(self) -> bool:
        """Whether the app must be called when the first of several steps has ended."""
        return self.options.get("parallelMode") == "race"


@dataclass(frozen=True, slots=True)
class Completed:
    """The function returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class PlannedSteps:
    """The function has reached these steps.

    ``each``: call the app again when one of them has ended, instead of all.
    """

    ops: Sequence[Op]
    each: bool = False


def read(reply: Reply) -> Completed | PlannedSteps:
    """Return the content of a reply. Raise ``RemoteFailed`` if it is an error."""
    if reply.status in RESULTS and SDK not in reply.headers:
        msg = f"The reply with status {reply.status} is not from an Inngest SDK."
        raise RemoteFailed(msg, error_type="NotSdk")
    if reply.status == 200:
        return Completed(_json(reply))
    if reply.status == 206:
        content = _json(reply)
        later = _later(reply.headers)
        final = reply.headers.get(NO_RETRY) == "true"
        many = content if isinstance(content, list) else [content]
        ops = [_op(item, final=final, later=later) for item in many]
        for op in ops:
            if op.kind == "runcomplete":
                return Completed(op.data)
        return PlannedSteps(ops, each=_version(reply) < COALESCING)
    raise _status_error(reply)


def _version(reply: Reply) -> int:
    """Return the protocol version of a reply."""
    text = reply.headers.get(VERSION, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0


def unwrapped(reply: Reply) -> Reply:
    """Return the reply inside a streamed reply, or the reply itself."""
    if reply.status != 201:
        return reply
    inner = _json(reply, final=False)
    if (
        not isinstance(inner, dict)
        or not isinstance(inner.get("status"), int)
        or not isinstance(inner.get("headers", {}), dict)
        or not isinstance(inner.get("body"), str)
    ):
        raise bad("The app's streamed reply has no status, headers and body.")
    headers = {str(k).lower(): str(v) for k, v in inner.get("headers", {}).items()}
    return replace(
        reply,
        status=inner["status"],
        # The signature of the outer body is not valid for the inner body.
        headers={k: v for k, v in reply.headers.items() if k != HEADER} | headers,
        body=inner["body"].encode(errors="surrogatepass"),
    )


def stripped(reply: Reply) -> Reply:
    """Return a reply without the headers that affect the run."""
    removed = (SDK, NO_RETRY)
    headers = {k: v for k, v in reply.headers.items() if k not in removed}
    return replace(reply, headers=headers)


def _json(reply: Reply, *, final: bool = True) -> Any:
    try:
        body = reply.body.strip() or b"null"
        return read_json(body, what="the app's reply", most=MAX_REPLY)
    except (LimitExceeded, PayloadError) as error:
        # A retry would return the same value.
        raise failure(
            error.message, "BadAnswer", final=final and SDK in reply.headers
        ) from None


def _status_error(reply: Reply) -> RemoteFailed:
    """Return the error of a reply by its status."""
    later = _later(reply.headers)
    final = reply.headers.get(NO_RETRY) == "true"
    if SDK in reply.headers and reply.status in (400, 500):
        try:
            content = read_json(reply.body, what="the app's error", most=MAX_REPLY)
        except (LimitExceeded, PayloadError):
            content = None
        if isinstance(content, dict):
            return _error(content, final=final, later=later)
    kinds = {401: "SignatureRefused", 404: "NotFound", 410: "NotFound"}
    if 300 <= reply.status < 400:
        msg = (
            f"The app replied with a redirect ({reply.status}), which is not followed."
        )
        return failure(msg, "Redirected")
    msg = f"The app replied with status {reply.status}."
    return failure(msg, kinds.get(reply.status, "BadStatus"), final=final, later=later)


def _error(
    content: Mapping[str, Any], *, final: bool, later: datetime | timedelta | None
) -> RemoteFailed:
    name = str(content.get("name") or content.get("code") or "Error")
    more = {k: content[k] for k in ("data", "cause") if content.get(k) is not None}
    if len(json.dumps(more)) > MAX_MORE:
        more = {}
    return failure(
        str(content.get("message") or name),
        name,
        stack=str(content.get("stack") or ""),
        data=more or None,
        final=final or bool(content.get("noRetry")),
        later=later,
    )


def _later(headers: Mapping[str, str]) -> datetime | timedelta | None:
    """Return the retry time of a reply: seconds, an ISO date or an HTTP date."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return min(max(timedelta(seconds=int(text)), EARLIEST), LATEST)
    moment = _moment(text)
    if moment is None:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
    now = clock.now()
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(aware, now + EARLIEST), now + LATEST)


def _moment(text: str) -> datetime | None:
    """Return an ISO date as an aware datetime, or None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def length_or_moment(value: Any) -> timedelta | datetime:
    """Return a time of a step: an ISO date, or a duration in Go's format.

    A negative duration becomes zero. Raise ``NonRetriableError`` if both fail.
    """
    text = str(value)
    if (moment := _moment(text)) is not None:
        return moment
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text.lstrip("+-"):
        raise NonRetriableError(f"The app's step has an invalid time: {text!r:.80}.")
    if text.startswith("-"):
        return timedelta()
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        return timedelta(microseconds=round(total))
    except OverflowError:
        return timedelta.max


def _op(content: Any, *, final: bool, later: datetime | timedelta | None) -> Op:
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), str) for name in ("op", "id")
    ):
        raise bad("The app's reply contains an invalid step.")
    if not HASH.fullmatch(content["id"]):
        raise bad("The app's reply contains a step whose id is not a SHA-1.")
    kind, options = content["op"].lower(), content.get("opts") or {}
    error = None
    if kind in ("steperror", "stepfailed"):
        record = content.get("error")
        error = _error(
            record if isinstance(record, dict) else {"message": str(record)},
            final=final or kind == "stepfailed",
            later=later,
        )
    return Op(
        kind=kind,
        id=content["id"],
        name=_name(content),
        label=str(content.get("name") or ""),
        options=options if isinstance(options, dict) else {},
        data=content.get("data"),
        error=error,
    )


def _name(content: Mapping[str, Any]) -> str:
    """Return the step name whose key is the app's id of the step."""
    given = content.get("userland")
    userland = given if isinstance(given, dict) else {}
    repeat = userland.get("index")
    plain = str(userland.get("id") or "")
    wanted = [
        ids.numbered(plain, repeat if isinstance(repeat, int) else 0),
        str(content.get("displayName") or ""),
        str(content.get("name") or ""),
    ]
    for name in wanted:
        if ids.step_key(name) == content["id"] and not UNNAMED.fullmatch(name):
            try:
                return check_name(name, "a step id")
            except ConfigurationError:
                break
    return f"#{content['id']}"


def remote_id(name: str, key: str) -> str:
    """Return the app's id of a recorded step."""
    return name[1:] if UNNAMED.fullmatch(name) else key


def encoded(request: Mapping[str, Any]) -> bytes:
    """Return a request as JSON."""
    return json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode()


def canonical(request: Mapping[str, Any]) -> bytes:
    """Return a request as canonical JSON (RFC 8785) for its signature."""
    import jcs

    try:
        text: bytes = jcs.canonicalize(request)
    except (OverflowError, ValueError) as error:
        msg = f"The run has a number that cannot be signed: {error}."
        raise NonRetriableError(msg) from None
    return text
