"""Events to send, and events as functions and expressions receive them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from durable_jobs.definitions.names import check_event_name, check_name
from durable_jobs.exceptions import ConfigurationError, PayloadError
from durable_jobs.serialization import private_copy

CALLED = "durable/function.called"
CRON = "durable/cron"
MODEL_CREATED = "durable/model.created"
MODEL_UPDATED = "durable/model.updated"
MODEL_DELETED = "durable/model.deleted"
RUN_ENDED = "durable/run.ended"
WEBHOOK_FAILED = "durable/webhook.failed"


@dataclass(frozen=True)
class NewEvent:
    """An event to send.

    ``ts`` is an aware datetime. If ``ts`` is in the future, the event takes effect
    then. An event with the same ``id`` is ignored for 24 hours.
    """

    name: str
    data: Any = None
    id: str | None = None
    ts: datetime | None = None
    user: Any = None
    v: str | None = None

    def checked(self, *, allow_reserved: bool = False) -> NewEvent:
        """Return the event itself. Raise if the event is invalid."""
        check_event_name(self.name, allow_reserved=allow_reserved)
        if self.id is not None:
            check_name(self.id, "an event id")
        if self.v is not None:
            check_name(self.v, "an event version")
        check_moment(self.ts, "ts")
        check_mapping(self.data, f"the data of event {self.name!r}")
        return self


def check_mapping(data: object, what: str) -> None:
    """Raise ``PayloadError`` unless ``data`` is a mapping, a pydantic model or None."""
    if data is None or isinstance(data, Mapping) or hasattr(data, "model_dump"):
        return
    msg = f"Expected {what} to be a dict, got {type(data).__name__}."
    raise PayloadError(msg)


def check_moment(moment: datetime | None, what: str) -> None:
    """Raise ``ConfigurationError`` unless ``moment`` is None or an aware datetime."""
    if moment is None:
        return
    if not isinstance(moment, datetime):
        msg = f"Expected {what} to be an aware datetime, got {moment!r:.80}."
        raise ConfigurationError(msg)
    if moment.utcoffset() is None:
        msg = f"Expected {what} to be an aware datetime, got a naive one: {moment}."
        raise ConfigurationError(msg)


@dataclass(frozen=True)
class ReceivedEvent:
    """An event as functions and callable expressions receive it."""

    id: str
    name: str
    data: Any
    ts: datetime
    user: Any = None
    v: str | None = None

    def with_private_data(self) -> ReceivedEvent:
        """Return the event with a copy of its data, for code that may change it."""
        return replace(self, data=private_copy(self.data))

    def as_dict(self) -> dict[str, Any]:
        """Return the event as string expressions see it."""
        return {
            "id": self.id,
            "name": self.name,
            "data": self.data,
            "ts": self.ts.isoformat(),
            "user": self.user,
            "v": self.v,
        }
