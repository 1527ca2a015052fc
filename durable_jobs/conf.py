"""The settings of an installation: the dict ``DURABLE_JOBS``, typed and checked.

A setting such as ``settings.TICK_INTERVAL`` is read from Django's settings on first
use, and again after a test overrides it. An invalid value raises
``ConfigurationError`` on use. ``problems()`` returns all invalid values for the system
check.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, cast

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import ConfigurationError

NAME = "DURABLE_JOBS"
_MEBIBYTE = 2**20


# Readers: each takes the name and the written value of a setting, and returns the
# typed value.


def _duration(name: str, value: Any) -> timedelta:
    found = parse_duration(value, what=f"setting {name}")
    if not found:
        raise ConfigurationError(f"The setting {name} is {value!r}: expected above 0.")
    return found


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise _wrong(name, value, "a whole number of 1 or more")
    return value


def _number(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise _wrong(name, value, "a whole number of 0 or more")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(name, value, "a string")
    return value


def _prefix(name: str, value: Any) -> str:
    return "" if value == "" else _text(name, value)


def _optional_text(name: str, value: Any) -> str | None:
    return None if value is None else _text(name, value)


def _version(name: str, value: Any) -> str:
    if value is None:
        found = (os.environ.get(variable) for variable in _VERSIONS)
        return next((version for version in found if version), "")
    return _text(name, value)


#: Environment variables in which platforms set the release.
_VERSIONS = ("GIT_SHA", "HEROKU_SLUG_COMMIT", "SOURCE_VERSION")


def _path(name: str, value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and "." in value):
        raise _wrong(name, value, "None or a dotted path, such as 'shop.rules.visible'")
    return value


def _url(name: str, value: Any) -> str | None:
    if value is not None and not (
        isinstance(value, str) and value.startswith(("http://", "https://"))
    ):
        raise _wrong(name, value, "None or an absolute http(s) address")
    return value


def _executor(name: str, value: Any) -> str:
    known = ("celery", "inline")
    if value not in known:
        raise _wrong(name, value, "'celery' or 'inline'" + _guess(value, known))
    return str(value)


def _audience(name: str, value: Any) -> str:
    known = ("public", "private", "off")
    if value not in known:
        raise _wrong(name, value, "'public', 'private' or 'off'" + _guess(value, known))
    return str(value)


def _database(name: str, value: Any) -> str:
    known = {"default", *django_settings.DATABASES}
    if not isinstance(value, str) or value not in known:
        raise _wrong(name, value, "an alias in DATABASES" + _guess(value, known))
    return value


def _keys(name: str, value: Any) -> tuple[str, ...]:
    # The values are secrets, so the message does not contain them.
    if not isinstance(value, list | tuple) or not all(
        isinstance(key, str) and key for key in value
    ):
        raise ConfigurationError(
            f"The setting {name} is a {type(value).__name__}: "
            f"expected a list of strings."
        )
    return tuple(value)


def _rate(name: str, value: Any) -> Rate | None:
    if value is None:
        return None
    limit, slash, period = str(value).partition("/")
    if not (isinstance(value, str) and slash and limit.isascii() and limit.isdigit()):
        raise _wrong(name, value, "None or a string such as '600/1m'")
    try:
        return Rate(_count(name, int(limit)), _duration(name, period))
    except ConfigurationError:
        raise _wrong(name, value, "None or a string such as '600/1m'") from None


def _retention(name: str, value: Any) -> Mapping[str, timedelta | None]:
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "a dict of durations")
    result = {status: parse_duration(text) for status, text in _RETENTION.items()}
    kept: dict[str, timedelta | None] = {**result}
    for status, written in value.items():
        key = f"{name}[{status!r}]"
        if status not in _RETENTION:
            expected = f"one of {', '.join(_RETENTION)}{_guess(status, _RETENTION)}"
            raise ConfigurationError(f"{key} is unknown: expected {expected}.")
        kept[status] = None if written is None else _duration(key, written)
    return kept


_RETENTION = {
    "completed": "30d",
    "failed": "90d",
    "cancelled": "30d",
    "skipped": "30d",
    "events": "30d",
}


@dataclass(frozen=True)
class Rate:
    """A maximum number per period."""

    limit: int
    period: timedelta


def _setting(default: Any, reader: Callable[[str, Any], Any]) -> Any:
    return field(
        default_factory=lambda: reader("default", default),
        metadata={"default": default, "reader": reader},
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting with its default. Durations are ``timedelta`` objects."""

    #: The time between ticks.
    TICK_INTERVAL: timedelta = _setting("1s", _duration)
    #: How long a sender waits after its commit for the broker to accept a message.
    NOTIFY_TIMEOUT: timedelta = _setting("1s", _duration)
    #: Send wake-up messages to the broker while Django's test environment is set up.
    NOTIFY_IN_TESTS: bool = _setting(False, _flag)
    #: How long a worker holds a run without renewing its lease.
    LEASE_DURATION: timedelta = _setting("60s", _duration)
    #: How long ended runs (by status) and events are kept. None keeps them forever.
    #: Statuses that are not in the dict keep their defaults.
    RETENTION: Mapping[str, timedelta | None] = _setting({}, _retention)
    #: Secrets with which programs may only send events over the API.
    EVENT_KEYS: tuple[str, ...] = _setting([], _keys)
    #: Maximum of steps in a run.
    MAX_STEPS: int = _setting(1000, _count)
    #: Maximum bytes of a stored step result.
    MAX_STEP_BYTES: int = _setting(4 * _MEBIBYTE, _count)
    #: Store the arguments of step bodies, for people.
    STORE_STEP_INPUTS: bool = _setting(True, _flag)
    #: Maximum bytes of all step results of a run.
    MAX_RUN_BYTES: int = _setting(32 * _MEBIBYTE, _count)
    #: Maximum bytes of an event's data.
    MAX_EVENT_BYTES: int = _setting(_MEBIBYTE // 2, _count)
    #: Maximum of events in a call or request, and in the batch of a run.
    MAX_EVENTS: int = _setting(5000, _count)
    #: Maximum of conditions that the router evaluates for an event in one pass.
    MATCH_BUDGET: int = _setting(1000, _count)
    #: Maximum length of a chain of events and runs that cause each other.
    MAX_DEPTH: int = _setting(25, _count)
    #: Maximum bytes of the body of an API request.
    MAX_REQUEST_BYTES: int = _setting(4 * _MEBIBYTE, _count)
    #: Maximum requests of an API key, or of an address without a key: "600/1m".
    API_RATE: Rate | None = _setting("1200/1m", _rate)
    #: Maximum deliveries of an address to a webhook: "600/1m".
    WEBHOOK_RATE: Rate | None = _setting("1200/1m", _rate)
    #: Maximum requests per run for its progress, or per address without a valid token.
    PROGRESS_RATE: Rate | None = _setting("1200/1m", _rate)
    #: Reverse proxies in front of Django that append to ``X-Forwarded-For``. The rates
    #: count the address that the outermost of these proxies saw.
    NUM_PROXIES: int = _setting(0, _number)
    #: Who may read the OpenAPI description: "public", "private" or "off".
    API_DESCRIPTION: str = _setting("private", _audience)
    #: Who may use the readiness probe: "public", "private" or "off".
    API_READY: str = _setting("public", _audience)
    #: What executes runs: "celery", or "inline" (in the calling process, for tests).
    EXECUTOR: Literal["celery", "inline"] = _setting("celery", _executor)
    #: The Celery app of the workers and beat, as "project.celery:app". None is the app
    #: that the worker was started with, and in other processes Celery's default app.
    CELERY_APP: str | None = _setting(None, _optional_text)
    #: The Celery queue for new events, and the default queue of functions.
    QUEUE: str = _setting("default", _text)
    #: The prefix of queue names on the broker, for two installations on one broker.
    QUEUE_PREFIX: str = _setting("", _prefix)
    #: The Celery queue of the tick. None is QUEUE.
    TICK_QUEUE: str = _setting(None, _optional_text)
    #: Maximum of runs per claim.
    CLAIM_BATCH: int = _setting(8, _count)
    #: How long a worker keeps claiming after one wake-up message.
    DRAIN_TIME: timedelta = _setting("1s", _duration)
    #: Worker crashes in a row after which a run fails.
    MAX_CRASHES: int = _setting(5, _count)
    #: Attempts in a row that end with a database error after which a run fails.
    MAX_DATABASE_ERRORS: int = _setting(20, _count)
    #: Suspend the run after every step (for tests of replay).
    ALWAYS_SUSPEND: bool = _setting(False, _flag)
    #: Threads per worker for the branches of a run.
    BRANCH_THREADS: int = _setting(8, _count)
    #: How long event ids and idempotency keys are kept.
    IDEMPOTENCY_PERIOD: timedelta = _setting("24h", _duration)
    #: The base of callback URLs. None: callbacks have no URL.
    CALLBACK_BASE_URL: str | None = _setting(None, _url)
    #: The lifetime of a progress token.
    PROGRESS_TOKEN_MAX_AGE: timedelta = _setting("1h", _duration)
    #: The rule for the runs that a viewer may see: a dotted path to a function.
    VISIBLE_RUNS: str | None = _setting(None, _path)
    #: Maximum of rows per deletion of old rows.
    PRUNE_BATCH: int = _setting(1000, _count)
    #: The release for log records. None reads it from the environment: GIT_SHA,
    #: HEROKU_SLUG_COMMIT or SOURCE_VERSION.
    VERSION: str = _setting(None, _version)
    #: How long no worker has the function of a run before a warning is shown.
    UNKNOWN_AFTER: timedelta = _setting("10m", _duration)
    #: The alias of the database with the tables of durable_jobs.
    DATABASE: str = _setting("default", _database)


_FIELDS = {item.name: item for item in fields(Settings)}


class _LazySettings:
    """A proxy for ``Settings`` that reads Django's settings lazily and caches them."""

    def __getattr__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise AttributeError(f"Unknown setting {NAME}[{name!r}].")
        value = self.__dict__[name] = _read(name, _written())
        return value

    def reload(self, *, setting: str, **kwargs: Any) -> None:
        """Clear the cache when a relevant Django setting changes."""
        if setting in (NAME, "DATABASES"):
            self.__dict__.clear()


_lazy = _LazySettings()
#: The settings in force.
settings = cast(Settings, _lazy)
setting_changed.connect(_lazy.reload, dispatch_uid="durable_jobs.conf")


def problems() -> list[tuple[str, str]]:
    """Return a message and a hint for each invalid setting."""
    try:
        written = _written()
    except ConfigurationError as error:
        return [(error.message, f"Write {NAME} = {{...}}.")]
    found = []
    for name in written:
        if name not in _FIELDS:
            hint = _guess(name, _FIELDS).strip(" ()") or (
                f"The settings are {', '.join(_FIELDS)}."
            )
            found.append((f"{NAME} has the unknown key {name!r}.", hint))
    for name, item in _FIELDS.items():
        try:
            _read(name, written)
        except ConfigurationError as error:
            if name == "TICK_QUEUE" and written.get(name) is None:
                continue  # QUEUE is invalid, and is reported already
            default = item.metadata["default"]
            found.append((error.message, f"Without it, {name} is {default!r}."))
    return found


def _written() -> Mapping[Any, Any]:
    written = getattr(django_settings, NAME, {})
    if not isinstance(written, Mapping):
        raise ConfigurationError(
            f"The setting {NAME} is a {type(written).__name__}: expected a dict."
        )
    return written


def _read(name: str, written: Mapping[Any, Any]) -> Any:
    item = _FIELDS[name].metadata
    value = item["reader"](f"{NAME}[{name!r}]", written.get(name, item["default"]))
    if name == "TICK_QUEUE" and value is None:
        return _read("QUEUE", written)
    return value


def _wrong(name: str, value: Any, expected: str) -> ConfigurationError:
    return ConfigurationError(f"The setting {name} is {value!r}: expected {expected}.")


def _guess(value: Any, known: Iterable[str]) -> str:
    options = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(value).lower(), options, n=1)
    return f" (Did you mean {options[close[0]]!r}?)" if close else ""
