"""Secrets of webhooks, read when they are needed and never displayed."""

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


#: A secret, several during rotation, or a setting or callable that returns them.
SecretLike = str | list[str] | tuple[str, ...] | Setting | Callable[[], Any]


class Secrets:
    """One or several accepted secrets. The repr does not contain them."""

    __slots__ = ("_given",)

    def __init__(self, given: Any) -> None:
        if isinstance(given, Secrets):
            given = given._given
        self._given: Any = given
        if not isinstance(given, Setting) and not callable(given):
            self._given = _strings(given)

    @property
    def from_setting(self) -> bool:
        """Whether the secrets come from a Django setting."""
        return isinstance(self._given, Setting)

    def read(self) -> list[str]:
        """Return the current secrets.

        Raise ``ConfigurationError`` if there are none.
        """
        given = self._given
        if isinstance(given, Setting):
            from django.conf import settings

            return list(_strings(getattr(settings, given.name, None), given.name))
        if callable(given):
            return list(_strings(given(), "the callable"))
        return list(given)

    def __repr__(self) -> str:
        given = self._given
        return repr(given) if isinstance(given, Setting) else "<secret>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secrets):
            return NotImplemented
        mine, theirs = self._given, other._given
        if isinstance(mine, tuple) and isinstance(theirs, tuple):
            return hmac.compare_digest(_joined(mine), _joined(theirs))
        if isinstance(mine, Setting) and isinstance(theirs, Setting):
            return mine.name == theirs.name
        return same_callable(mine, theirs)

    def __hash__(self) -> int:
        return hash(type(self._given))


def same_callable(first: Any, second: Any) -> bool:
    """Return whether both are the same callable, even if it was imported twice."""
    if first is second:
        return True
    names = [
        (getattr(fn, "__module__", None), getattr(fn, "__qualname__", None))
        for fn in (first, second)
    ]
    named = all(map(callable, (first, second))) and None not in names[0]
    return named and names[0] == names[1] and "<" not in str(names[0][1])


def _strings(given: Any, where: str = "") -> tuple[str, ...]:
    strings = (given,) if isinstance(given, str) else given
    if (
        not isinstance(strings, list | tuple)
        or not strings
        or not all(isinstance(text, str) and text for text in strings)
    ):
        # The value may be a secret, so the message does not contain it.
        place = f" from {where}" if where else ""
        msg = (
            f"Expected a secret{place} to be a non-empty string or a list of non-empty "
            f"strings, got {type(given).__name__}."
        )
        raise ConfigurationError(msg)
    return tuple(strings)


def _joined(strings: tuple[str, ...]) -> bytes:
    return "\0".join(strings).encode(errors="surrogatepass")
