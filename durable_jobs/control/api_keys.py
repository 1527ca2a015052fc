"""API keys: create, identify and revoke them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Q

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.control import audit, id_namespaces
from durable_jobs.control.actor import Actor
from durable_jobs.control.scopes import SCOPES
from durable_jobs.definitions.names import check_name
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import ApiKey
from durable_jobs.project_code import is_active
from durable_jobs.store import db

#: The prefix of every key, for people and for secret scanners.
BEGINS = "dj_"
#: Characters of a key that are stored, so that people can tell keys apart.
SHOWN = 10
#: The minimum time between updates of ``used_at``.
USED_AT_INTERVAL = timedelta(minutes=1)
SEND_EVENT = "durable_jobs.send_event"
_LONGEST = 200
_MAX_NAME = 100


@dataclass(frozen=True)
class NewApiKey:
    """A new key with its text, which is not stored."""

    key: ApiKey
    text: str


def create(
    actor: Actor,
    name: str,
    scopes: Sequence[str],
    *,
    events: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> NewApiKey:
    """Create a key that acts in the actor's name, with an entry in the log.

    ``events`` are prefixes of the event names that it may send. Raise
    ``PermissionDenied`` without the permission to add keys, and ``ConfigurationError``
    for invalid values.
    """
    if not actor.may("durable_jobs.add_apikey"):
        raise PermissionDenied
    _check(name, scopes, events)
    if expires_at is not None and expires_at <= clock.now():
        msg = f"Expected a key to expire in the future, got {expires_at}."
        raise ConfigurationError(msg)
    text = BEGINS + secrets.token_urlsafe(32)
    with db.atomic():
        key = ApiKey(
            name=name,
            prefix=text[:SHOWN],
            digest=digest(text),
            scopes=sorted(set(scopes)),
            events=list(events),
            owner=str(actor.user.pk),
            created_at=clock.now(),
            expires_at=expires_at,
        )
        db.insert(key)
        audit.write(actor, key, f"Created with the scopes {', '.join(key.scopes)}.")
    return NewApiKey(key, text)


def revoke(actor: Actor, key: ApiKey, reason: str = "") -> bool:
    """Revoke a key; return whether this call did it."""
    if not actor.may("durable_jobs.revoke_apikey", key):
        raise PermissionDenied
    with db.atomic():
        rows = db.rows(ApiKey).filter(pk=key.pk)
        done = rows.filter(revoked_at__isnull=True).update(revoked_at=clock.now())
        if done:
            audit.write(actor, key, f"Revoked: {reason}" if reason else "Revoked.")
    key.refresh_from_db()
    return bool(done)


def digest(text: str) -> str:
    """Return the digest of a key, which is stored."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def identify(text: str) -> Actor | None:
    """Return the actor of a key, or None if the key is invalid.

    A key is invalid if it is unknown, expired or revoked, or if its owner is missing or
    inactive.
    """
    if not 0 < len(text) <= _LONGEST:
        return None
    known = digest(text)
    if _in_settings(known):
        return Actor(
            _Sender(),
            via="EVENT_KEYS",
            scopes=frozenset({"events:send"}),
            space=id_namespaces.of_secret(text),
        )
    key = db.rows(ApiKey).filter(digest=known).first()
    if key is None or not hmac.compare_digest(key.digest, known):
        return None
    now = clock.now()
    if state(key, now) != ACTIVE:
        return None
    owner = owner_of(key)
    if owner is None or not is_active(owner):
        return None
    _record_use(key, now)
    return Actor(
        owner,
        via=f"API key {key}",
        scopes=frozenset(key.scopes),
        events=tuple(key.events),
        key=key.pk,
        space=id_namespaces.of_user(owner),
    )


ACTIVE, EXPIRED, REVOKED = "active", "expired", "revoked"


def state(key: ApiKey, now: datetime) -> str:
    """Return the state of a key at a time, as one of three words."""
    if key.revoked_at is not None:
        return REVOKED
    if key.expires_at is not None and key.expires_at <= now:
        return EXPIRED
    return ACTIVE


def owner_of(key: ApiKey) -> Any:
    """Return the user in whose name a key acts, or None if the user is missing."""
    users = get_user_model()
    try:
        return users._default_manager.filter(pk=key.owner).first()
    except (ValueError, TypeError):
        return None


class _Sender:
    """The user of the secrets in the settings, which belong to no person."""

    pk = None
    is_active = True

    def has_perm(self, permission: str, obj: Any = None) -> bool:
        """Allow to send events."""
        return permission == SEND_EVENT


def _in_settings(known: str) -> bool:
    """Compare with all secrets, so that the time does not depend on the match."""
    found = False
    for secret in settings.EVENT_KEYS:
        found |= hmac.compare_digest(digest(secret), known)
    return found


def _record_use(key: ApiKey, now: datetime) -> None:
    """Update ``used_at`` of a key, unless it is recent."""
    before = now - USED_AT_INTERVAL
    if key.used_at is not None and key.used_at > before:
        return
    rows = db.rows(ApiKey).filter(pk=key.pk)
    rows.filter(Q(used_at__isnull=True) | Q(used_at__lte=before)).update(used_at=now)


def _check(name: str, scopes: Sequence[str], events: Sequence[str]) -> None:
    check_name(name, "the name of a key")
    if len(name) > _MAX_NAME:
        msg = f"Expected the name of a key of at most {_MAX_NAME} characters."
        raise ConfigurationError(msg)
    unknown = sorted(set(scopes) - SCOPES.keys())
    if unknown or not scopes:
        msg = f"Expected scopes among {', '.join(SCOPES)}, got {unknown or 'none'}."
        raise ConfigurationError(msg)
    for prefix in events:
        check_name(prefix, "the beginning of an event's name")
