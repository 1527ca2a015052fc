"""Who sent a webhook: the schemes by which providers sign what they post.

A scheme looks at the raw body and the headers, and never says to the outside why it
refused: ``Unverified`` is for the log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from durable_jobs.definitions.secrets import SecretLike, Secrets, Setting
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from durable_jobs.types import Duration

ALGORITHMS = ("sha1", "sha256", "sha512")
ENCODINGS = ("hex", "base64")
_PARTS = re.compile(r"(\{\w*\})")
_SECONDS = re.compile(r"[0-9]{1,12}")


class Unverified(Exception):
    """A delivery is not from who it should be from. Caught where it is answered."""


@dataclass(frozen=True)
class Delivery:
    """What came: the raw body, the headers (whatever their case), and when."""

    body: bytes
    headers: Mapping[str, str]
    at: datetime


@dataclass(frozen=True)
class Scheme:
    """A way to tell who sent a delivery. Make one with the classes below."""

    secret: SecretLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", Secrets(self.secret))

    @property
    def secrets(self) -> Secrets:
        """The secret or secrets that count."""
        assert isinstance(self.secret, Secrets)
        return self.secret

    def check(self, delivery: Delivery) -> None:
        """Raise ``Unverified`` unless the delivery is from who knows the secret."""
        raise NotImplementedError

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return what the provider calls this delivery, the same when it repeats it."""
        return None

    def handshake(self, payload: Any) -> str | None:
        """Return what a provider that only asks whether we are here wants to hear."""
        return None


@dataclass(frozen=True)
class Hmac(Scheme):
    """A signature in a header: an HMAC of the body, or of a text that holds it.

    ``signed`` is that text, with ``{body}``, ``{timestamp}`` and ``{id}``. Where there
    is a ``timestamp_header`` (in seconds), a delivery more than ``tolerance`` from now,
    to either side, is refused. ``id_header`` names the delivery.
    """

    header: str = field(kw_only=True)
    algorithm: Literal["sha1", "sha256", "sha512"] = field(
        default="sha256", kw_only=True
    )
    encoding: Literal["hex", "base64"] = field(default="hex", kw_only=True)
    prefix: str = field(default="", kw_only=True)
    signed: str = field(default="{body}", kw_only=True)
    timestamp_header: str | None = field(default=None, kw_only=True)
    tolerance: Duration = field(default="5m", kw_only=True)
    id_header: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("algorithm", ALGORITHMS), ("encoding", ENCODINGS)):
            if getattr(self, name) not in known:
                msg = f"Expected {name} to be one of {', '.join(known)}."
                raise ConfigurationError(msg)
        for name in ("header", "timestamp_header", "id_header"):
            _check_header(getattr(self, name), name, needed=name == "header")
        if not parse_duration(self.tolerance, what="tolerance"):
            msg = "Expected a tolerance above zero."
            raise ConfigurationError(msg)
        self._check_signed()

    def _check_signed(self) -> None:
        parts = set(_PARTS.findall(self.signed))
        needed = {"{body}"}
        # A time or an id that is not signed could be anybody's.
        needed |= {"{timestamp}"} if self.timestamp_header else set()
        known = needed | ({"{id}"} if self.id_header else set())
        if not needed <= parts <= known:
            msg = (
                f"Expected signed to have {' and '.join(sorted(needed))}, and nothing "
                f"in braces that has no header, got {self.signed!r:.80}."
            )
            raise ConfigurationError(msg)

    def check(self, delivery: Delivery) -> None:
        """Raise ``Unverified`` unless a signature is right and not out of time."""
        signatures = self._signatures(delivery.headers)
        if not signatures:
            msg = "there is no signature"
            raise Unverified(msg)
        message = self._message(delivery)
        right = False
        for key in self._keys():
            expected = hmac.new(key, message, self.algorithm).digest()
            for signature in signatures:
                right |= hmac.compare_digest(expected, signature)
        if not right:
            msg = "the signature does not match"
            raise Unverified(msg)

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the id in ``id_header``."""
        return headers.get(self.id_header) if self.id_header else None

    def _keys(self) -> list[bytes]:
        return [secret.encode() for secret in self.secrets.read()]

    def _signatures(self, headers: Mapping[str, str]) -> list[bytes]:
        given = headers.get(self.header, "").strip()
        if not given.startswith(self.prefix):
            return []
        return self._decoded([given.removeprefix(self.prefix)])

    def _decoded(self, texts: list[str]) -> list[bytes]:
        found = []
        for text in texts:
            try:
                if self.encoding == "hex":
                    found.append(binascii.unhexlify(text))
                else:
                    found.append(base64.b64decode(text, validate=True))
            except ValueError:  # binascii.Error is one
                continue
        return found

    def _timestamp(self, headers: Mapping[str, str]) -> str:
        return headers.get(self.timestamp_header or "", "")

    def _message(self, delivery: Delivery) -> bytes:
        found: dict[str, bytes] = {"{body}": delivery.body}
        if "{timestamp}" in self.signed:
            stamp = self._timestamp(delivery.headers)
            self._check_time(stamp, delivery.at)
            found["{timestamp}"] = stamp.encode()
        if "{id}" in self.signed:
            found["{id}"] = (self.delivery_id(delivery.headers, None) or "").encode()
        return b"".join(
            found[part] if part in found else part.encode()
            for part in _PARTS.split(self.signed)
        )

    def _check_time(self, stamp: str, now: datetime) -> None:
        if not _SECONDS.fullmatch(stamp):
            msg = "there is no timestamp in seconds"
            raise Unverified(msg)
        away = abs(int(now.timestamp()) - int(stamp))
        if away > parse_duration(self.tolerance).total_seconds():
            msg = f"its timestamp is {away} s away from now"
            raise Unverified(msg)


@dataclass(frozen=True, kw_only=True)
class GitHub(Hmac):
    """GitHub's ``X-Hub-Signature-256``; ``X-GitHub-Delivery`` is the delivery."""

    header: str = "X-Hub-Signature-256"
    prefix: str = "sha256="
    id_header: str | None = "X-GitHub-Delivery"


@dataclass(frozen=True, kw_only=True)
class Shopify(Hmac):
    """Shopify's ``X-Shopify-Hmac-Sha256``, with ``X-Shopify-Webhook-Id``."""

    header: str = "X-Shopify-Hmac-Sha256"
    encoding: Literal["hex", "base64"] = "base64"
    id_header: str | None = "X-Shopify-Webhook-Id"


@dataclass(frozen=True, kw_only=True)
class Slack(Hmac):
    """Slack's ``X-Slack-Signature``. Its question for the ``challenge`` is answered."""

    header: str = "X-Slack-Signature"
    prefix: str = "v0="
    signed: str = "v0:{timestamp}:{body}"
    timestamp_header: str | None = "X-Slack-Request-Timestamp"

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the ``event_id`` of the Events API; other requests have none."""
        return _text_at(payload, "event_id")

    def handshake(self, payload: Any) -> str | None:
        """Return the challenge of a ``url_verification``."""
        asked = _text_at(payload, "type") == "url_verification"
        return _text_at(payload, "challenge") if asked else None


@dataclass(frozen=True, kw_only=True)
class Stripe(Hmac):
    """Stripe's ``Stripe-Signature: t=…,v1=…``; the event's ``id`` is the delivery."""

    header: str = "Stripe-Signature"
    signed: str = "{timestamp}.{body}"

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the id of Stripe's event."""
        return _text_at(payload, "id")

    def _check_signed(self) -> None:
        """Nothing to check: the timestamp is in the signature's own header."""

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

    Svix sends the same with ``svix-`` before the names. Secrets are those that begin
    with ``whsec_``.
    """

    header: str = "webhook-signature"
    encoding: Literal["hex", "base64"] = "base64"
    signed: str = "{id}.{timestamp}.{body}"
    timestamp_header: str | None = "webhook-timestamp"
    id_header: str | None = "webhook-id"

    def check(self, delivery: Delivery) -> None:
        """Raise ``Unverified`` unless a signature is right and not out of time."""
        if not self.delivery_id(delivery.headers, None):
            msg = "there is no webhook-id"
            raise Unverified(msg)
        super().check(delivery)

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
            msg = "Expected a secret that is base64, after whsec_."
            raise ConfigurationError(msg) from None

    def _signatures(self, headers: Mapping[str, str]) -> list[bytes]:
        given = self._either(headers, self.header).split()[:20]
        return self._decoded([one[3:] for one in given if one.startswith("v1,")])

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
    """The secret itself in a header, as a bearer token unless said otherwise."""

    header: str = field(default="Authorization", kw_only=True)
    prefix: str | None = field(default=None, kw_only=True)
    id_header: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("header", "id_header"):
            _check_header(getattr(self, name), name, needed=name == "header")

    def check(self, delivery: Delivery) -> None:
        """Raise ``Unverified`` unless the header has a secret that counts."""
        bearer = "Bearer " if self.header.lower() == "authorization" else ""
        prefix = bearer if self.prefix is None else self.prefix
        given = delivery.headers.get(self.header, "").encode(errors="surrogatepass")
        right = False
        for secret in self.secrets.read():
            # A digest of each: their lengths are no secret's length then.
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
    """Nothing is checked: whoever knows the address can start the function."""

    id_header: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_header(self.id_header, "id_header", needed=False)

    def check(self, delivery: Delivery) -> None:
        """Accept."""

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the id in ``id_header``."""
        return headers.get(self.id_header) if self.id_header else None

    def handshake(self, payload: Any) -> str | None:
        """Return None: nobody asks."""
        return None


def _check_header(name: Any, what: str, *, needed: bool) -> None:
    if name is None and not needed:
        return
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9-]+", name):
        msg = f"Expected {what} to be the name of a header, got {name!r:.80}."
        raise ConfigurationError(msg)


def _text_at(payload: Any, key: str) -> str | None:
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
