"""What is said to an app and what its answers mean: the serve protocol, version 2."""

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
#: From this version on, an app is asked once when several steps have all ended.
COALESCING = 2
#: Says that it has not answered yet, so that it chooses the version.
UNKNOWN = -1
#: A call that is for no step in particular.
ANY_STEP = "step"
#: The statuses of replies that hold what the function or its steps gave.
RESULTS = (200, 206)
HASH = re.compile(r"[0-9a-f]{40}")
#: How a step is called here whose name the app does not tell.
UNNAMED = re.compile(r"#[0-9a-f]{40}")
#: Characters of what an error says besides its message and stack.
MAX_MORE = 64 * 1024
#: Lengths of time as Go writes them, in microseconds.
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
#: As an app may ask for it.
EARLIEST, LATEST = timedelta(seconds=1), timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Op:
    """A step that the app has found, planned or run. ``kind`` is in lower case."""

    kind: str
    id: str
    name: str
    label: str
    options: Mapping[str, Any]
    data: Any = None
    error: RemoteFailed | None = None

    @property
    def races(self) -> bool:
        """Tell whether the app wants to go on when any of several steps has ended."""
        return self.options.get("parallelMode") == "race"


@dataclass(frozen=True, slots=True)
class Completed:
    """The function returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class PlannedSteps:
    """The function is at these steps.

    ``each``: the app is to be asked again when one of them has ended, not all.
    """

    ops: Sequence[Op]
    each: bool = False


def read(reply: Reply) -> Completed | PlannedSteps:
    """Return what a reply says; raise ``RemoteFailed`` for a failure, or nonsense."""
    if reply.status in RESULTS and SDK not in reply.headers:
        msg = f"What answered with status {reply.status} is no app of an Inngest SDK."
        raise RemoteFailed(msg, error_type="NotSdk")
    if reply.status == 200:
        return Completed(_json(reply))
    if reply.status == 206:
        said = _json(reply)
        later = _later(reply.headers)
        final = reply.headers.get(NO_RETRY) == "true"
        many = said if isinstance(said, list) else [said]
        ops = [_op(one, final=final, later=later) for one in many]
        for op in ops:
            if op.kind == "runcomplete":
                return Completed(op.data)
        return PlannedSteps(ops, each=_version(reply) < COALESCING)
    raise _refusal(reply)


def _version(reply: Reply) -> int:
    """Return by which version of the protocol the app has answered."""
    said = reply.headers.get(VERSION, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 4 else 0


def unwrapped(reply: Reply) -> Reply:
    """Return the reply inside one that was kept alive with blanks, or the reply."""
    if reply.status != 201:
        return reply
    inner = _json(reply, final=False)
    if (
        not isinstance(inner, dict)
        or not isinstance(inner.get("status"), int)
        or not isinstance(inner.get("headers", {}), dict)
        or not isinstance(inner.get("body"), str)
    ):
        raise bad("The app's streamed answer holds no status, headers and body.")
    headers = {str(k).lower(): str(v) for k, v in inner.get("headers", {}).items()}
    return replace(
        reply,
        status=inner["status"],
        # The signature of the outer body is none of the inner one.
        headers={k: v for k, v in reply.headers.items() if k != HEADER} | headers,
        body=inner["body"].encode(errors="surrogatepass"),
    )


def stripped(reply: Reply) -> Reply:
    """Return a reply without the headers by which an app speaks of its function."""
    spoken = (SDK, NO_RETRY)
    headers = {k: v for k, v in reply.headers.items() if k not in spoken}
    return replace(reply, headers=headers)


def _json(reply: Reply, *, final: bool = True) -> Any:
    try:
        body = reply.body.strip() or b"null"
        return read_json(body, what="the app's answer", most=MAX_REPLY)
    except (LimitExceeded, PayloadError) as error:
        # A value that the app can store and we cannot will be the same next time.
        raise failure(
            error.message, "BadAnswer", final=final and SDK in reply.headers
        ) from None


def _refusal(reply: Reply) -> RemoteFailed:
    """Return the error that a status stands for."""
    later = _later(reply.headers)
    final = reply.headers.get(NO_RETRY) == "true"
    if SDK in reply.headers and reply.status in (400, 500):
        try:
            said = read_json(reply.body, what="the app's error", most=MAX_REPLY)
        except (LimitExceeded, PayloadError):
            said = None
        if isinstance(said, dict):
            return _error(said, final=final, later=later)
    kinds = {401: "SignatureRefused", 404: "NotFound", 410: "NotFound"}
    if 300 <= reply.status < 400:
        msg = f"The app answered with a redirect ({reply.status}), which is refused."
        return failure(msg, "Redirected")
    msg = f"The app answered with status {reply.status}."
    return failure(msg, kinds.get(reply.status, "BadStatus"), final=final, later=later)


def _error(
    said: Mapping[str, Any], *, final: bool, later: datetime | timedelta | None
) -> RemoteFailed:
    name = str(said.get("name") or said.get("code") or "Error")
    more = {k: said[k] for k in ("data", "cause") if said.get(k) is not None}
    if len(json.dumps(more)) > MAX_MORE:
        more = {}
    return failure(
        str(said.get("message") or name),
        name,
        stack=str(said.get("stack") or ""),
        data=more or None,
        final=final or bool(said.get("noRetry")),
        later=later,
    )


def _later(headers: Mapping[str, str]) -> datetime | timedelta | None:
    """Return when a reply asks to be tried again: seconds, a date or an HTTP date."""
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
    """Return an ISO date as an aware time, None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def length_or_moment(value: Any) -> timedelta | datetime:
    """Return what an app writes for a time: an ISO date, or a length in Go's way.

    What is less than nothing is nothing. Raises ``NonRetriableError`` for neither of
    them.
    """
    text = str(value)
    if (moment := _moment(text)) is not None:
        return moment
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text.lstrip("+-"):
        raise NonRetriableError(
            f"The app's step has a time that is none: {text!r:.80}."
        )
    if text.startswith("-"):
        return timedelta()
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        return timedelta(microseconds=round(total))
    except OverflowError:
        return timedelta.max


def _op(said: Any, *, final: bool, later: datetime | timedelta | None) -> Op:
    if not isinstance(said, dict) or not all(
        isinstance(said.get(name), str) for name in ("op", "id")
    ):
        raise bad("The app's answer holds what is no step.")
    if not HASH.fullmatch(said["id"]):
        raise bad("The app's answer holds a step whose id is no SHA-1.")
    kind, options = said["op"].lower(), said.get("opts") or {}
    error = None
    if kind in ("steperror", "stepfailed"):
        record = said.get("error")
        error = _error(
            record if isinstance(record, dict) else {"message": str(record)},
            final=final or kind == "stepfailed",
            later=later,
        )
    return Op(
        kind=kind,
        id=said["id"],
        name=_name(said),
        label=str(said.get("name") or ""),
        options=options if isinstance(options, dict) else {},
        data=said.get("data"),
        error=error,
    )


def _name(said: Mapping[str, Any]) -> str:
    """Return the name under which a step has the id that the app knows it by."""
    own = said.get("userland")
    userland = own if isinstance(own, dict) else {}
    repeat = userland.get("index")
    plain = str(userland.get("id") or "")
    wanted = [
        ids.numbered(plain, repeat if isinstance(repeat, int) else 0),
        str(said.get("displayName") or ""),
        str(said.get("name") or ""),
    ]
    for name in wanted:
        if ids.step_key(name) == said["id"] and not UNNAMED.fullmatch(name):
            try:
                return check_name(name, "a step id")
            except ConfigurationError:
                break
    return f"#{said['id']}"


def known_as(name: str, key: str) -> str:
    """Return the id by which the app knows a step that is recorded."""
    return name[1:] if UNNAMED.fullmatch(name) else key


def encoded(request: Mapping[str, Any]) -> bytes:
    """Return a request as JSON."""
    return json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode()


def canonical(request: Mapping[str, Any]) -> bytes:
    """Return a request in the canonical form that is signed, RFC 8785."""
    import jcs

    try:
        text: bytes = jcs.canonicalize(request)
    except (OverflowError, ValueError) as error:
        msg = f"The run holds a number that cannot be signed: {error}."
        raise NonRetriableError(msg) from None
    return text
