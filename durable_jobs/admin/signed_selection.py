"""What somebody chose in a list, on its way through a form: signed, and his alone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core import signing
from django.http import HttpRequest

SALT = "durable_jobs.admin.selection"
#: Seconds for which a form can be sent.
MAX_AGE = 12 * 60 * 60
#: The name under which a form holds it.
FIELD = "selection"


@dataclass(frozen=True, slots=True)
class SignedSelection:
    """Keys of objects, the way back, and a token: one form, sent once or more."""

    keys: Sequence[str]
    back: str
    token: str

    @classmethod
    def new(cls, keys: Sequence[Any], back: str) -> SignedSelection:
        """Return a choice that no form has been made of."""
        return cls([str(key) for key in keys], back, uuid.uuid4().hex)

    def signed(self, request: HttpRequest, purpose: str) -> str:
        """Return the choice as a text that only its user can use, and only there."""
        parts = [str(request.user.pk), purpose, self.keys, self.back, self.token]
        return signing.dumps(parts, salt=SALT, compress=True)

    @classmethod
    def read(cls, request: HttpRequest, purpose: str) -> SignedSelection | None:
        """Return the choice that a form holds; None for one that does not count."""
        text = request.POST.get(FIELD, "")
        try:
            user, signed_for, keys, back, token = signing.loads(
                text, salt=SALT, max_age=MAX_AGE
            )
        except (signing.BadSignature, ValueError, TypeError):
            return None
        mine = user == str(request.user.pk) and signed_for == purpose
        return cls(keys, back, token) if mine else None
