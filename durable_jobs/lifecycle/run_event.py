"""The event of a run, rebuilt from what the run stores of it."""

from __future__ import annotations

import dataclasses
import logging
from datetime import datetime
from typing import Any

from django.core.exceptions import ObjectDoesNotExist

from durable_jobs import ids, serialization
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.exceptions import PayloadError
from durable_jobs.models import Run
from durable_jobs.models.fields import payload

logger = logging.getLogger("durable_jobs")


def build_event_meta(
    name: str,
    ts: datetime,
    id: str | None = None,
    user: Any = None,
    v: str | None = None,
) -> dict[str, Any]:
    """Return what a run stores of its event besides the data (``Run.event_meta``)."""
    meta = {"id": id or str(ids.new_id()), "name": name, "ts": ts.isoformat()}
    if user is not None:
        what = f"the user of event {name!r}"
        meta["user"] = serialization.to_tree(user, what=what, wrapped=True)
    if v:
        meta["v"] = v
    return meta


def event_of(run: Run) -> ReceivedEvent:
    """Return the event that started a run; raise if its data cannot be decoded."""
    return event_from_meta(_meta_of(run), payload(run, "data"))


def lenient_event_of(run: Run) -> ReceivedEvent:
    """Return the event that started a run, with what cannot be decoded as stored."""
    meta = _meta_of(run)
    user = meta.pop("user", None)
    try:
        user = serialization.from_tree(user)
    except Exception:  # kept as stored
        logger.debug("The user of run %s cannot be decoded.", run.pk, exc_info=True)
    return dataclasses.replace(event_from_meta(meta, run.data), user=user)


def _meta_of(run: Run) -> dict[str, Any]:
    meta = {"id": str(run.pk), "name": run.trigger, "ts": run.queued_at.isoformat()}
    return meta | (run.event_meta or {})


def event_from_meta(meta: dict[str, Any], data: Any) -> ReceivedEvent:
    """Return an event made of its data and of ``Run.event_meta``."""
    return ReceivedEvent(
        id=meta["id"],
        name=meta["name"],
        data=data,
        ts=datetime.fromisoformat(meta["ts"]),
        user=_user(meta.get("user")),
        v=meta.get("v"),
    )


def _user(tree: Any) -> Any:
    """Return the user of an event, as stored if the user was deleted."""
    try:
        return serialization.from_tree(tree)
    except (PayloadError, ObjectDoesNotExist):
        return tree
