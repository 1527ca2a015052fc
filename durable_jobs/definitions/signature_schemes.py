"""Verification of webhooks: the base class of schemes, and the HMAC scheme.

A scheme checks the raw body and the headers. The reason of a failure, ``Unverified``,
is logged and never sent to the client.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from durable_jobs.definitions.secrets import SecretLike, Secrets
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from durable_jobs.types import Duration

ALGORITHMS = ("sha1", "sha256", "sha512")
ENCODINGS = ("hex", "base64")
_PARTS = re.compile(r"(\{\w*\})")
_SECONDS = re.compile(r"[0-9]{1,12}")


class Unverified(Exception):
    """The sender of a delivery could not be verified."""


@dataclass(frozen=True)
class Delivery:
    """A webhook request: raw body, case-insensitive headers, and time of arrival."""

    body: bytes
    headers: Mapping[str, str]
    at: datetime


@dataclass(frozen=True)
class Scheme(ABC):
    """A way to verify the sender of a delivery. See ``durable.verify``."""

    secret: SecretLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", Secrets(self.secret))

    @property
    def secrets(self) -> Secrets:
        """The accepted secrets."""
        assert isinstance(self.secret, Secrets)
        return self.secret

    def precheck(  # noqa: B027  # not every scheme has a check before the body
        self, headers: Mapping[str, str], at: datetime
    ) -> None:
        """Raise ``Unverified`` if the headers alone are invalid.

        The body is not read.
        """

    @abstractmethod
    def check(self, delivery: Delivery) -> None:
        """Raise ``Unverified`` unless the sender knows the secret."""

    def delivery_id(self, headers: Mapping[str, str], payload: Any) -> str | None:
        """Return the provider's id of this delivery, which is the same in a retry."""
        return None

    def handshake(self, payload: Any) -> str | None:
        """Return the response to a provider's test request, or None for a delivery."""
        return None


@dataclass(frozen=True)
class Hmac(Scheme):
    """A signature in a header: an HMAC of the body, or of a string with the body.

    ``signed`` is the signed string, with ``{body}``, ``{timestamp}`` and ``{id}``. With
    a ``timestamp_header`` (in seconds), a delivery more than ``tolerance`` in the past
    or the future is rejected. ``id_header`` holds the id of the delivery.
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
            check_header(getattr(self, name), name, needed=name == "header")
        if not parse_duration(self.tolerance, what="tolerance"):
            msg = "Expected a tolerance above zero."
            raise ConfigurationError(msg)
        self._check_signed()

    def _check_signed(self) -> None:
        parts = set(_PARTS.findall(self.signed))
        needed = {"{body}"}
        # Anyone could forge a time or an id that is not signed.
        needed |= {"{timestamp}"} if self.timestamp_header else set()
        known = needed | ({"{id}"} if self.id_header else set())
        if not needed <= parts <= known:
            msg = (
                f"Expected signed to contain {' and '.join(sorted(needed))}, and no "
                f"placeholder without a header, got {self.signed!r:.80}."
            )
            raise ConfigurationError(msg)

    def precheck(self, headers: Mapping[str, str], at: datetime) -> None:
        """Raise ``Unverified`` if the signature is missing or the timestamp too old."""
        if not self._signatures(headers):
            msg = "there is no signature"
            raise Unverified(msg)
        if "{timestamp}" in self.signed:
            self._check_time(self._timestamp(headers), at)

    def check(self, delivery: Delivery) -> None:
        """Raise ``Unverified`` unless a signature and the timestamp are valid."""
        self.precheck(delivery.headers, delivery.at)
        signatures = self._signatures(delivery.headers)
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
            except ValueError:  # binascii.Error is a ValueError
                continue
        return found

    def _timestamp(self, headers: Mapping[str, str]) -> str:
        return headers.get(self.timestamp_header or "", "")

    def _message(self, delivery: Delivery) -> bytes:
        found: dict[str, bytes] = {"{body}": delivery.body}
        if "{timestamp}" in self.signed:
            found["{timestamp}"] = self._timestamp(delivery.headers).encode()
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
            msg = f"the timestamp is {away} s away from now"
            raise Unverified(msg)


def check_header(name: Any, what: str, *, needed: bool) -> None:
    """Raise ``ConfigurationError`` unless ``name`` is a header name, or optional."""
    if name is None and not needed:
        return
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9-]+", name):
        msg = f"Expected {what} to be the name of a header, got {name!r:.80}."
        raise ConfigurationError(msg)
