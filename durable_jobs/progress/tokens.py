"""Short-lived signed tokens: each lets its holder see the progress of one run."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta

from django.core.signing import BadSignature, TimestampSigner

from durable_jobs.conf import settings

SALT = "durable_jobs.progress"
#: So long before its end a token stops the page that polls with it.
LAST_POLL = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class ProgressView:
    """What a token shows: one run, with or without names, of how many steps."""

    run_id: uuid.UUID
    names: bool = True
    total: int | None = None
    last: bool = False

    def token(self) -> str:
        """Return it as a token that counts from now on."""
        parts = [self.run_id.hex, int(self.names), self.total]
        return TimestampSigner(salt=SALT).sign_object(parts)


def read(token: str) -> ProgressView | None:
    """Return what a token shows; None for one that is none, or is too old."""
    signer = TimestampSigner(salt=SALT)
    age = settings.PROGRESS_TOKEN_MAX_AGE
    try:
        run_id, names, total = signer.unsign_object(token, max_age=age)
        view = ProgressView(uuid.UUID(str(run_id)), bool(names), total)
    except (BadSignature, ValueError, TypeError):
        return None
    try:
        signer.unsign_object(token, max_age=age - LAST_POLL)
    except BadSignature:
        return ProgressView(view.run_id, view.names, view.total, last=True)
    return view
