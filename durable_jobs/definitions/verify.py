"""Signature schemes of webhook providers: ``durable.verify``."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from durable_jobs.definitions.secrets import Setting
from durable_jobs.definitions.signature_schemes import (
    Delivery,
    Hmac,
    Scheme,
    Unverified,
    check_header,
)
from durable_jobs.exceptions import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class GitHub(Hmac):
    """GitHub: ``X-Hub-Signature-256``, with the id in ``X-GitHub-Delivery``."""

    header: str = "X-Hub-Signature-256"
    prefix: str = "sha256="
    id_header: str | None = "X-GitHub-Delivery"


@dataclass(frozen=True, kw_only=True)
class Shopify(Hmac):
    """Shopify: ``X-Shopify-Hmac-Sha256``, with the id in ``X-Shopify-Webhook-Id``."""

    header: str = "X-Shopify-Hmac-Sha256"
    encoding: Literal["hex", "base64"] = "base64"
    id_header: str | None = "X-Shopify-Webhook-Id"


@dataclass(frozen=True, kw_only=True)
class Slack(Hmac):
    """Slack: ``X-Slack-Signature``. Answers the ``url_verification`` challenge."""

    header: str = "X-Slack-Signature"
    prefix: str = "v0="
    signed: str = "v0:{timestamp}:{body}"
    timestamp_header: str | None = "X-Slack-Request-Timestamp"

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the ``event_id`` of the Events API, or None for other requests."""
        return _string_at(payload, "event_id")

    def handshake(self, payload: Any) -> str | None:
        """Return the challenge of a ``url_verification``."""
        is_test = _string_at(payload, "type") == "url_verification"
        return _string_at(payload, "challenge") if is_test else None


@dataclass(frozen=True, kw_only=True)
class Stripe(Hmac):
    """Stripe: ``Stripe-Signature: t=…,v1=…``, with the id of the event."""

    header: str = "Stripe-Signature"
    signed: str = "{timestamp}.{body}"

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the id of Stripe's event."""
        return _string_at(payload, "id")

    def _check_signed(self) -> None:
        """Check nothing: the timestamp is in the signature header."""

    def _signatures(self, headers: Mapping[str, str]) -> list[bytes]:
        return self._decoded([v for k, v in self._items(headers) if k == "v1"])

    def _timestamp(self, headers: Mapping[str, str]) -> str:
        stamps = [v for k, v in self._items(headers) if k == "t"]
        return stamps[0] if len(stamps) == 1 else ""

    def _items(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        given = headers.get(self.header, "").split(",")[:20]
        parts = (item.partition("=") for item in given)
        return [(key.strip(), value.strip()) for key, _, value in parts]


@dataclass(frozen=True, kw_only=True)
class StandardWebhooks(Hmac):
    """The ``webhook-id``, ``-timestamp`` and ``-signature`` of Standard Webhooks.

    Svix sends the same headers with the prefix ``svix-``. Secrets begin with
    ``whsec_``.
    """

    header: str = "webhook-signature"
    encoding: Literal["hex", "base64"] = "base64"
    signed: str = "{id}.{timestamp}.{body}"
    timestamp_header: str | None = "webhook-timestamp"
    id_header: str | None = "webhook-id"

    def precheck(self, headers: Mapping[str, str], at: datetime) -> None:
        """Raise ``Unverified`` if the id, signature or timestamp is missing or old."""
        if not self.delivery_id(headers, None):
            msg = "there is no webhook-id"
            raise Unverified(msg)
        super().precheck(headers, at)

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the id of the message."""
        return self._either(headers, "webhook-id") or None

    def _keys(self) -> list[bytes]:
        try:
            return [
                base64.b64decode(secret.removeprefix("whsec_"), validate=True)
                for secret in self.secrets.read()
            ]
        except binascii.Error:
            msg = "Expected a secret in base64, after the prefix whsec_."
            raise ConfigurationError(msg) from None

    def _signatures(self, headers: Mapping[str, str]) -> list[bytes]:
        given = self._either(headers, self.header).split()[:20]
        return self._decoded([part[3:] for part in given if part.startswith("v1,")])

    def _timestamp(self, headers: Mapping[str, str]) -> str:
        return self._either(headers, "webhook-timestamp")

    def _either(self, headers: Mapping[str, str], name: str) -> str:
        return (
            headers.get(name)
            or headers.get(f"svix{name.removeprefix('webhook')}")
            or ""
        )


@dataclass(frozen=True)
class SharedSecret(Scheme):
    """The secret itself in a header, by default as a bearer token."""

    header: str = field(default="Authorization", kw_only=True)
    prefix: str | None = field(default=None, kw_only=True)
    id_header: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("header", "id_header"):
            check_header(getattr(self, name), name, needed=name == "header")

    def check(self, delivery: Delivery) -> None:
        """Raise ``Unverified`` unless the header contains an accepted secret."""
        self.precheck(delivery.headers, delivery.at)

    def precheck(self, headers: Mapping[str, str], at: datetime) -> None:
        """Raise ``Unverified`` unless the header contains an accepted secret."""
        bearer = "Bearer " if self.header.lower() == "authorization" else ""
        prefix = bearer if self.prefix is None else self.prefix
        given = headers.get(self.header, "").encode(errors="surrogatepass")
        right = False
        for secret in self.secrets.read():
            # Comparing digests does not reveal the length of the secret.
            expected = hashlib.sha256(f"{prefix}{secret}".encode()).digest()
            right |= hmac.compare_digest(expected, hashlib.sha256(given).digest())
        if not right:
            msg = "the secret does not match"
            raise Unverified(msg)

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the id in ``id_header``."""
        return headers.get(self.id_header) if self.id_header else None


@dataclass(frozen=True)
class Unsigned:
    """No verification: anyone who knows the URL can start the function."""

    id_header: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_header(self.id_header, "id_header", needed=False)

    def check(self, delivery: Delivery) -> None:
        """Accept."""

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the id in ``id_header``."""
        return headers.get(self.id_header) if self.id_header else None

    def handshake(self, payload: Any) -> str | None:
        """Return None: there is no test request."""
        return None


def _string_at(payload: Any, key: str) -> str | None:
    value = payload.get(key) if isinstance(payload, dict) else None
    return value if isinstance(value, str) and value else None


__all__ = [
    "GitHub",
    "Hmac",
    "Setting",
    "SharedSecret",
    "Shopify",
    "Slack",
    "StandardWebhooks",
    "Stripe",
    "Unsigned",
]
