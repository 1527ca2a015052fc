"""Webhook triggers: a path, its verification, and the event of a delivery."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asgiref.sync import iscoroutinefunction

from durable_jobs.definitions.names import WEBHOOK
from durable_jobs.definitions.secrets import same_callable
from durable_jobs.definitions.signature_schemes import Scheme
from durable_jobs.definitions.templates import check_mapping
from durable_jobs.definitions.verify import Unsigned
from durable_jobs.exceptions import ConfigurationError

MAX_PATH = 150
_PATH = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)*")


@dataclass(frozen=True)
class Webhook:
    """Start a run for each delivery that is posted to ``webhooks/<path>``.

    ``verify`` is required: a scheme of ``durable.verify``, or a callable
    ``(request) -> bool``. ``durable.verify.Unsigned()`` accepts every request.
    ``transform`` creates the event. It is a mapping, or a callable ``(body, headers)``
    that returns a ``NewEvent``, a list of them, or None to ignore the delivery. Without
    ``transform``, the event is named ``webhook/<path>`` and its data is the body.
    """

    path: str
    verify: Scheme | Unsigned | Callable[[Any], bool] | None = None
    transform: Callable[[Any, Mapping[str, str]], Any] | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        where = f"Webhook({self.path!r:.80})"
        if (
            not isinstance(self.path, str)
            or len(self.path) > MAX_PATH
            or not _PATH.fullmatch(self.path)
        ):
            msg = (
                f"{where}: expected a path of at most {MAX_PATH} characters, such as "
                f"'stripe' or 'shop/paid': lower-case letters, digits, '-', '_', '.', "
                f"separated by single slashes."
            )
            raise ConfigurationError(msg)
        self._check_verify(where)
        if isinstance(self.transform, Mapping):
            check_mapping(self.transform, f"{where} transform")
        elif self.transform is not None:
            _check_callable(self.transform, f"{where}: expected transform to be")

    def _check_verify(self, where: str) -> None:
        if isinstance(self.verify, Scheme | Unsigned):
            return
        if self.verify is None:
            msg = (
                f"{where}: expected verify: a scheme such as "
                f"durable.verify.Stripe(secret), a callable (request) -> bool, or "
                f"durable.verify.Unsigned() to accept every request."
            )
            raise ConfigurationError(msg)
        if isinstance(self.verify, type):
            msg = (
                f"{where}: expected an instance, {self.verify.__name__}(…), in verify."
            )
            raise ConfigurationError(msg)
        _check_callable(self.verify, f"{where}: expected verify to be a scheme or")

    @property
    def event(self) -> str:
        """The name of its events, unless ``transform`` sets another."""
        return f"{WEBHOOK}{self.path}"

    def agrees_with(self, other: Webhook) -> bool:
        """Return whether two declarations of one path are equal."""
        return all(
            mine == theirs or same_callable(mine, theirs)
            for mine, theirs in (
                (self.verify, other.verify),
                (self.transform, other.transform),
            )
        )


def _check_callable(value: Any, expected: str) -> None:
    if not callable(value) or iscoroutinefunction(value):
        msg = f"{expected} a callable that is not async, got {value!r:.80}."
        raise ConfigurationError(msg)
