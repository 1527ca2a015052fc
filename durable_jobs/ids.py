"""Ids of events and runs (ordered by time) and of steps (derived from names)."""

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
    """Return a new UUIDv7 (RFC 9562), which sorts by time of creation.

    The class is always ``uuid.UUID``, even if the library returns a subclass.
    """
    return uuid.UUID(int=uuid7().int)


def new_token() -> uuid.UUID:
    """Return a new random lease token."""
    return uuid.uuid4()


def numbered(name: str, repeat: int) -> str:
    """Return the id of a step with its number among steps of the same name."""
    return f"{name}:{repeat}" if repeat else name


def step_key(name: str, parent: str = "", repeat: int = 0) -> str:
    """Return the key of a step: the SHA-1 of its id, prefixed by ``parent``'s key.

    The first step of a name has the plain id. Repeats append ``:1``, ``:2`` and so on.
    """
    text = numbered(name, repeat)
    scoped = f"{parent}/{text}" if parent else text
    return hashlib.sha1(scoped.encode(), usedforsecurity=False).hexdigest()


@functools.lru_cache(maxsize=4096)
def step_pk(run_id: uuid.UUID, key: str) -> uuid.UUID:
    """Return the primary key of a step, before its row is written.

    The key begins with the first bytes of the run's id, so the steps of a run are
    neighbours in the index, ordered by time.
    """
    digest = hashlib.sha1(run_id.bytes + key.encode(), usedforsecurity=False).digest()
    return uuid.UUID(bytes=run_id.bytes[:8] + digest[:8])
