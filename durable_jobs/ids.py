"""Identities: of events and runs (time-ordered), and of steps (derived from names)."""

from __future__ import annotations

import functools
import hashlib
import sys
import uuid

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid6 import uuid7

__all__ = ["new_id", "new_token", "numbered", "step_key", "step_pk"]


def new_id() -> uuid.UUID:
    """Return a new UUIDv7 (RFC 9562): ids made later sort later.

    Always a plain ``uuid.UUID``, whatever class the library behind it makes.
    """
    return uuid.UUID(int=uuid7().int)


def new_token() -> uuid.UUID:
    """Return a fresh random lease token."""
    return uuid.uuid4()


def numbered(name: str, repeat: int) -> str:
    """Return the id of a step as it counts among others of its name."""
    return f"{name}:{repeat}" if repeat else name


def step_key(name: str, parent: str = "", repeat: int = 0) -> str:
    """Return the key of a step: the SHA-1 of its id, scoped below ``parent``'s key.

    The first step of a name has the plain key; repeats 1, 2 … append ``:1``, ``:2``.
    """
    text = numbered(name, repeat)
    scoped = f"{parent}/{text}" if parent else text
    return hashlib.sha1(scoped.encode(), usedforsecurity=False).hexdigest()


@functools.lru_cache(maxsize=4096)
def step_pk(run_id: uuid.UUID, key: str) -> uuid.UUID:
    """Return the primary key of a step, known before its row is written.

    It begins with the run's own first bytes, so that a run's steps lie together in the
    index, in the order of time.
    """
    digest = hashlib.sha1(run_id.bytes + key.encode(), usedforsecurity=False).digest()
    return uuid.UUID(bytes=run_id.bytes[:8] + digest[:8])
