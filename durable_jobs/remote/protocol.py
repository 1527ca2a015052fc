"""What is said to an app and what its answers mean: the serve protocol, version 2."""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from durable_jobs import clock, ids
from durable_jobs.definitions.names import check_name
from durable_jobs.exceptions import ConfigurationError, PayloadError, RemoteFailed
from durable_jobs.remote.client import Reply
from durable_jobs.remote.errors import failure
from durable_jobs.serialization.outside import read_json

SDK = "x-inngest-sdk"
NO_RETRY = "x-inngest-no-retry"
#: A call that is for no step in particular.
ANY_STEP = "step"
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
class Found:
    """The function is at these steps."""

    ops: Sequence[Op]


def read(reply: Reply) -> Completed | Found:
    """Return what a reply says; raise ``RemoteFailed`` for a failure, or nonsense."""
    if reply.status == 201:
        reply = _unwrapped(reply)
    if reply.status in (200, 206) and SDK not in reply.headers:
        msg = f"What answered with status {reply.status} is no app of an Inngest SDK."
        raise RemoteFailed(msg, error_type="NotSdk")
    if reply.status == 200:
        return Completed(_json(reply))
    if reply.status == 206:
        said = _json(reply)
        later = _later(reply.headers)
        final = reply.headers.get(NO_RETRY) == "true"
        many = said if isinstance(said, list) else [said]
        return Found([_op(one, final=final, later=later) for one in many])
    raise _refusal(reply)


def _unwrapped(reply: Reply) -> Reply:
    """Return the reply inside one that was kept alive with blanks."""
    inner = _json(reply)
    if (
        not isinstance(inner, dict)
        or not isinstance(inner.get("status"), int)
        or not isinstance(inner.get("headers", {}), dict)
        or not isinstance(inner.get("body"), str)
    ):
        msg = "The app's streamed answer holds no status, headers and body."
        raise RemoteFailed(msg, error_type="BadAnswer")
    headers = {str(k).lower(): str(v) for k, v in inner.get("headers", {}).items()}
    return replace(
        reply,
        status=inner["status"],
        headers={**reply.headers, **headers},
        body=inner["body"].encode(errors="surrogatepass"),
    )


def _json(reply: Reply) -> Any:
    try:
        return read_json(reply.body.strip() or b"null", what="the app's answer")
    except PayloadError as error:
        # A value that the app can store and we cannot will be the same next time.
        raise failure(error.message, "BadAnswer", final=SDK in reply.headers) from None


def _refusal(reply: Reply) -> RemoteFailed:
    """Return the error that a status stands for."""
    later = _later(reply.headers)
    final = reply.headers.get(NO_RETRY) == "true"
    if SDK in reply.headers and reply.status in (400, 500):
        try:
            said = read_json(reply.body, what="the app's error")
        except PayloadError:
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
    return failure(
        str(said.get("message") or name),
        name,
        stack=str(said.get("stack") or ""),
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
        except ValueError:
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


def length_or_moment(value: Any) -> str | datetime:
    """Return what an app writes for a time: an ISO date as such, else a duration."""
    text = str(value)
    return text if (moment := _moment(text)) is None else moment


def _op(said: Any, *, final: bool, later: datetime | timedelta | None) -> Op:
    if not isinstance(said, dict) or not all(
        isinstance(said.get(name), str) for name in ("op", "id")
    ):
        msg = "The app's answer holds what is no step."
        raise RemoteFailed(msg, error_type="BadAnswer")
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
        if ids.step_key(name) == said["id"]:
            try:
                return check_name(name, "a step id")
            except ConfigurationError:
                break
    return str(said["id"])


def encoded(request: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return a request as JSON, and in the canonical form that is signed."""
    import jcs

    text = json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode()
    canonical: bytes = jcs.canonicalize(request)
    return text, canonical
