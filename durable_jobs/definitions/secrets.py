"""Secrets of webhooks: given or named, read when they are needed, never shown."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from durable_jobs.exceptions import ConfigurationError


@dataclass(frozen=True)
class Setting:
    """The name of the Django setting that holds a secret, or a list of them."""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            msg = f"Expected the name of a Django setting, got {self.name!r:.80}."
            raise ConfigurationError(msg)


#: A secret, several while one replaces another, or where to get them.
SecretLike = str | list[str] | tuple[str, ...] | Setting | Callable[[], Any]


class Secrets:
    """One secret or several, each of which counts. Its repr does not tell them."""

    __slots__ = ("_given",)

    def __init__(self, given: Any) -> None:
        if isinstance(given, Secrets):
            given = given._given
        self._given: Any = given
        if not isinstance(given, Setting) and not callable(given):
            self._given = _texts(given)

    @property
    def named(self) -> bool:
        """Tell whether they are those of a Django setting."""
        return isinstance(self._given, Setting)

    def read(self) -> list[str]:
        """Return the secrets in force; raise ``ConfigurationError`` without any."""
        given = self._given
        if isinstance(given, Setting):
            from django.conf import settings

            return list(_texts(getattr(settings, given.name, None), given.name))
        if callable(given):
            return list(_texts(given(), "the callable"))
        return list(given)

    def __repr__(self) -> str:
        given = self._given
        return repr(given) if isinstance(given, Setting) else "<secret>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secrets):
            return NotImplemented
        one, two = self._given, other._given
        if isinstance(one, tuple) and isinstance(two, tuple):
            return hmac.compare_digest(_joined(one), _joined(two))
        if isinstance(one, Setting) and isinstance(two, Setting):
            return one.name == two.name
        return same_callable(one, two)

    def __hash__(self) -> int:
        return hash(type(self._given))


def same_callable(one: Any, two: Any) -> bool:
    """Tell whether two are one callable, or one that was imported a second time."""
    if one is two:
        return True
    names = [
        (getattr(fn, "__module__", None), getattr(fn, "__qualname__", None))
        for fn in (one, two)
    ]
    named = all(map(callable, (one, two))) and None not in names[0]
    return named and names[0] == names[1] and "<" not in str(names[0][1])


def _texts(given: Any, where: str = "") -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str) else given
    if (
        not isinstance(texts, list | tuple)
        or not texts
        or not all(isinstance(text, str) and text for text in texts)
    ):
        # What was given may be a secret, so it stays out of the message.
        place = f" from {where}" if where else ""
        msg = (
            f"Expected a secret{place} to be a text, or a list of texts, none of them "
            f"empty, got {type(given).__name__}."
        )
        raise ConfigurationError(msg)
    return tuple(texts)


def _joined(texts: tuple[str, ...]) -> bytes:
    return "\0".join(texts).encode(errors="surrogatepass")
