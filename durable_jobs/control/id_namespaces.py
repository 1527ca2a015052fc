"""Name spaces: the event ids and start keys of one owner meet no one else's.

Programs choose ids and keys such as ``order-7``. Over HTTP these belong to the owner of
the API key, or to the secret of ``EVENT_KEYS``. They are stored with that in front,
``api:user-5:order-7``, so that your project's own ids and keys stay apart from them.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from durable_jobs.definitions.names import MAX_LENGTH

PREFIX = "api"
_PLAIN = re.compile(r"[A-Za-z0-9-]{1,64}")


def of_user(user: Any) -> str:
    """Return the name space of a user, for all of the user's API keys."""
    key = str(user.pk)
    # A digest is marked as one: another user's plain key could be the same text.
    return f"user-{key}" if _PLAIN.fullmatch(key) else f"user.{_digest(key)}"


def of_secret(secret: str) -> str:
    """Return the name space of a secret in ``EVENT_KEYS``, which tells little of it."""
    return f"secret-{_digest(f'durable_jobs:{secret}')[:8]}"


def stored(space: str, given: str) -> str:
    """Return an id or a key as it is stored; one too long for that as its digest."""
    if not space:
        return given
    name = f"{PREFIX}:{space}:{given}"
    return name if len(name) <= MAX_LENGTH else f"{PREFIX}:{space}:{_digest(given)}"


def given(space: str, name: str) -> str:
    """Return a stored id or key as its owner gave it; any other one as it is."""
    own = f"{PREFIX}:{space}:"
    return name.removeprefix(own) if space else name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
