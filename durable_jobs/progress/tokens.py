"""Short-lived signed tokens. Each shows the progress of one run."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta

from django.core.signing import BadSignature, TimestampSigner

from durable_jobs.conf import settings

SALT = "durable_jobs.progress"
#: Before a token expires by this time, it stops the polling of its page.
LAST_POLL = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class ProgressView:
    """The content of a token: a run, whether to show step names, and the step total."""

    run_id: uuid.UUID
    names: bool = True
    total: int | None = None
    last: bool = False

    def token(self) -> str:
        """Return a signed token that expires from now on."""
        parts = [self.run_id.hex, int(self.names), self.total]
        return TimestampSigner(salt=SALT).sign_object(parts)


def read(token: str) -> ProgressView | None:
    """Return the content of a token, or None if it is invalid or expired."""
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
