"""A signed selection of list rows, passed through a form and valid for one user."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core import signing
from django.http import HttpRequest

SALT = "durable_jobs.admin.selection"
#: Seconds until a form expires.
MAX_AGE = 12 * 60 * 60
#: The name of the form field.
FIELD = "selection"


@dataclass(frozen=True, slots=True)
class SignedSelection:
    """The selected keys, the URL to return to, and the form's token."""

    keys: Sequence[str]
    back: str
    token: str

    @classmethod
    def new(cls, keys: Sequence[Any], back: str) -> SignedSelection:
        """Return a selection with a new token."""
        return cls([str(key) for key in keys], back, uuid.uuid4().hex)

    def signed(self, request: HttpRequest, purpose: str) -> str:
        """Return the selection as signed text, valid for this user and purpose."""
        parts = [str(request.user.pk), purpose, self.keys, self.back, self.token]
        return signing.dumps(parts, salt=SALT, compress=True)

    @classmethod
    def read(cls, request: HttpRequest, purpose: str) -> SignedSelection | None:
        """Return the selection of a form, or None if it is invalid or expired."""
        text = request.POST.get(FIELD, "")
        try:
            user, signed_for, keys, back, token = signing.loads(
                text, salt=SALT, max_age=MAX_AGE
            )
        except (signing.BadSignature, ValueError, TypeError):
            return None
        mine = user == str(request.user.pk) and signed_for == purpose
        return cls(keys, back, token) if mine else None
