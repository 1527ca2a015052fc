"""Namespaces that keep the event ids and idempotency keys of owners apart.

Programs choose ids and keys such as ``order-7``. Over HTTP they belong to the owner of
the API key, or to the secret in ``EVENT_KEYS``. They are stored with that prefix, as
``api:user-5:order-7``, so that they cannot conflict with your project's own ids.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from durable_jobs.definitions.names import MAX_LENGTH

PREFIX = "api"
_PLAIN = re.compile(r"[A-Za-z0-9-]{1,64}")


def of_user(user: Any) -> str:
    """Return the namespace of a user, for all of the user's API keys."""
    key = str(user.pk)
    # A digest is marked, because another user's plain key could be the same text.
    return f"user-{key}" if _PLAIN.fullmatch(key) else f"user.{_digest(key)}"


def of_secret(secret: str) -> str:
    """Return the namespace of a secret in ``EVENT_KEYS``, without the secret."""
    return f"secret-{_digest(f'durable_jobs:{secret}')[:8]}"


def stored(space: str, given: str) -> str:
    """Return an id or key as stored: with a prefix, or as a digest if too long."""
    if not space:
        return given
    name = f"{PREFIX}:{space}:{given}"
    return name if len(name) <= MAX_LENGTH else f"{PREFIX}:{space}:{_digest(given)}"


def given(space: str, name: str) -> str:
    """Return an id or key without the owner's prefix, if it has the prefix."""
    prefix = f"{PREFIX}:{space}:"
    return name.removeprefix(prefix) if space else name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
