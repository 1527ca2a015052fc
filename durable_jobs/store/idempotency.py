"""Idempotency keys of starts, as unique rows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.models import IdempotencyKey, Run
from durable_jobs.statuses import LIVE
from durable_jobs.store import db


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """A request to start ``run_id`` with a key. ``fingerprint`` hashes the data."""

    function: str
    key: str
    run_id: uuid.UUID
    fingerprint: str = ""


def claim_keys(claims: Sequence[KeyClaim]) -> dict[tuple[str, str], IdempotencyKey]:
    """Claim the free keys; return the rows of the keys that are taken.

    The caller's transaction holds the keys: a concurrent claim of the same key waits
    until that transaction ends, and then sees its row.
    """
    if not claims:
        return {}
    expires_at = clock.now() + settings.IDEMPOTENCY_PERIOD
    db.rows(IdempotencyKey).bulk_create(
        [
            IdempotencyKey(
                function=claim.function,
                key=claim.key,
                run_id=claim.run_id,
                fingerprint=claim.fingerprint,
                expires_at=expires_at,
            )
            for claim in claims
        ],
        ignore_conflicts=True,
    )
    wanted = {(claim.function, claim.key): claim for claim in claims}
    rows = db.rows(IdempotencyKey).filter(
        function__in={claim.function for claim in claims},
        key__in={claim.key for claim in claims},
    )
    taken = {}
    for row in rows:
        claim = wanted.get((row.function, row.key))
        if claim is None or row.run_id == claim.run_id:
            continue
        if not _take_over(row, claim, expires_at):
            taken[row.function, row.key] = row
    return taken


def transfer(claims: Sequence[KeyClaim], run_id: uuid.UUID | None) -> None:
    """Transfer claimed keys to another run, or free them if ``run_id`` is None."""
    for claim in claims:
        rows = db.rows(IdempotencyKey).filter(
            function=claim.function, key=claim.key, run_id=claim.run_id
        )
        if run_id is None:
            rows.delete()
        else:
            rows.update(run_id=run_id)


def _take_over(row: IdempotencyKey, claim: KeyClaim, expires_at: datetime) -> bool:
    """Take over an expired key whose run has ended; return whether this call did."""
    now = clock.now()
    if row.expires_at > now:
        return False
    if db.rows(Run).filter(pk=row.run_id, status__in=LIVE).exists():
        return False
    old = db.rows(IdempotencyKey).filter(pk=row.pk, expires_at=row.expires_at)
    return bool(
        old.update(
            run_id=claim.run_id, fingerprint=claim.fingerprint, expires_at=expires_at
        )
    )
