"""Starts under a key: a repeated start returns the run that holds the key.

Two kinds of keys start a function once: the value of its ``idempotency`` option, and
the key of ``using(key=...)``, which also compares the data.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from durable_jobs import serialization
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.function import Function
from durable_jobs.exceptions import DuplicateKeyError
from durable_jobs.flow_control.keys import idempotency_key_of
from durable_jobs.models import Run
from durable_jobs.store import db, idempotency
from durable_jobs.store.idempotency import KeyClaim

_NAMED = "key:"


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key that another run holds. ``same_data``: both starts have the same data."""

    claim: KeyClaim
    run_id: uuid.UUID
    same_data: bool


def claims_of(
    function: Function, event: ReceivedEvent, run_id: uuid.UUID, data: Any
) -> list[KeyClaim]:
    """Return a claim for each key of a start; ``data`` is the data of the caller.

    Raise ``ExpressionError`` if the function's idempotency key fails.
    """
    found = []
    if function.options.key is not None:
        text = serialization.canonical({} if data is None else data)
        fingerprint = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        name = f"{_NAMED}{function.options.key}"
        found.append(KeyClaim(function.id, name, run_id, fingerprint))
    if function.flow_control.idempotency is not None:
        repeat = idempotency_key_of(function, event)
        if repeat is not None:
            found.append(KeyClaim(function.id, repeat, run_id))
    return found


def claim_keys(claims: Sequence[KeyClaim]) -> HeldKey | None:
    """Claim all keys of one start, in its transaction; return None if all were free.

    If another run holds one of them, that run gets the free keys too.
    """
    rows = idempotency.claim_keys(claims)
    for claim in claims:
        row = rows.get((claim.function, claim.key))
        if row is not None:
            same_data = row.fingerprint == claim.fingerprint
            if len(rows) < len(claims):
                idempotency.transfer(claims, row.run_id if same_data else None)
            return HeldKey(claim, row.run_id, same_data)
    return None


def holder(taken: HeldKey) -> Run:
    """Return the run that holds a key; raise ``DuplicateKeyError``."""
    name, function = taken.claim.key, taken.claim.function
    named = name.startswith(_NAMED)
    what = f"The key {name[len(_NAMED) :]!r}" if named else "The idempotency key"
    if not taken.same_data:
        msg = f"{what} of {function!r} was used with other data, by run {taken.run_id}."
        raise DuplicateKeyError(msg)
    run = db.rows(Run).filter(pk=taken.run_id).first()
    if run is None:
        msg = (
            f"{what} of this call of {function!r} was used by run {taken.run_id}. This "
            f"run does not exist: it was deleted, or its event was buffered with "
            f"others."
        )
        raise DuplicateKeyError(msg)
    return run
