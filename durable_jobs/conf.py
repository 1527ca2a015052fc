"""The settings of an installation: one dict, ``DURABLE_JOBS``, typed and checked.

``settings.TICK`` and its like are read from Django's settings when first asked for,
and again after a test overrides them. A wrong value raises ``ConfigurationError``
where it is asked for; ``problems()`` finds all of them for the system check.
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


# Readers: each takes the setting's name and the value as written, and gives it typed.


def _duration(name: str, value: Any) -> timedelta:
    found = parse_duration(value, what=f"setting {name}")
    if not found:
        raise ConfigurationError(f"The setting {name} is {value!r}: expected above 0.")
    return found


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise _wrong(name, value, "a whole number of 1 or more")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(name, value, "a text")
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


#: Where platforms name the release that a process runs.
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
    # The values are secrets, so they stay out of the message.
    if not isinstance(value, list | tuple) or not all(
        isinstance(key, str) and key for key in value
    ):
        raise ConfigurationError(
            f"The setting {name} is a {type(value).__name__}: expected a list of texts."
        )
    return tuple(value)


def _rate(name: str, value: Any) -> Rate | None:
    if value is None:
        return None
    limit, slash, period = str(value).partition("/")
    if not (isinstance(value, str) and slash and limit.isascii() and limit.isdigit()):
        raise _wrong(name, value, "None or a text such as '600/1m'")
    try:
        return Rate(_count(name, int(limit)), _duration(name, period))
    except ConfigurationError:
        raise _wrong(name, value, "None or a text such as '600/1m'") from None


def _retention(name: str, value: Any) -> Mapping[str, timedelta | None]:
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "a dict of durations")
    result = {status: parse_duration(text) for status, text in _RETENTION.items()}
    kept: dict[str, timedelta | None] = {**result}
    for status, written in value.items():
        place = f"{name}[{status!r}]"
        if status not in _RETENTION:
            expected = f"one of {', '.join(_RETENTION)}{_guess(status, _RETENTION)}"
            raise ConfigurationError(f"{place} is unknown: expected {expected}.")
        kept[status] = None if written is None else _duration(place, written)
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
    """So many in a period."""

    limit: int
    period: timedelta


def _setting(default: Any, reader: Callable[[str, Any], Any]) -> Any:
    return field(
        default_factory=lambda: reader("default", default),
        metadata={"default": default, "reader": reader},
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting with its default. Durations are read into ``timedelta``."""

    #: How often beat ticks.
    TICK_INTERVAL: timedelta = _setting("1s", _duration)
    #: How long a sender waits, after its commit, for the broker to take its message.
    NOTIFY_TIMEOUT: timedelta = _setting("1s", _duration)
    #: Send wake-up messages to the broker while Django's test environment is set up.
    NOTIFY_IN_TESTS: bool = _setting(False, _flag)
    #: How long a worker owns a run without renewing.
    LEASE_DURATION: timedelta = _setting("60s", _duration)
    #: How long ended runs (by status) and events are kept; None keeps them for ever.
    #: What is written here changes only the statuses that it names.
    RETENTION: Mapping[str, timedelta | None] = _setting({}, _retention)
    #: Secrets with which programs may send events over the API, and nothing else.
    EVENT_KEYS: tuple[str, ...] = _setting([], _keys)
    #: Steps in one run.
    MAX_STEPS: int = _setting(1000, _count)
    #: Bytes of one step's result, as stored.
    MAX_STEP_BYTES: int = _setting(4 * _MEBIBYTE, _count)
    #: Keep what the bodies of steps are called with, for people to look at.
    STORE_STEP_INPUTS: bool = _setting(True, _flag)
    #: Bytes of all the results of a run.
    MAX_RUN_BYTES: int = _setting(32 * _MEBIBYTE, _count)
    #: Bytes of one event's data.
    MAX_EVENT_BYTES: int = _setting(_MEBIBYTE // 2, _count)
    #: Events in one call or request, and in one run that collects them.
    MAX_EVENTS: int = _setting(5000, _count)
    #: Conditions that one event evaluates in one turn of the router.
    MATCH_BUDGET: int = _setting(1000, _count)
    #: Events and runs that may lead, one from the other, to a send or a start.
    MAX_DEPTH: int = _setting(25, _count)
    #: Bytes of the body of one request to the API.
    MAX_REQUEST_BYTES: int = _setting(4 * _MEBIBYTE, _count)
    #: Requests that one key, or one address without a key, may make: "600/1m".
    API_RATE: Rate | None = _setting("1200/1m", _rate)
    #: Deliveries that one address may post to one webhook: "600/1m".
    WEBHOOK_RATE: Rate | None = _setting("1200/1m", _rate)
    #: Requests for the progress of one run, or of one address without a valid token.
    PROGRESS_RATE: Rate | None = _setting("1200/1m", _rate)
    #: Who may read the description of the API: "public", "private" or "off".
    API_DESCRIPTION: str = _setting("private", _audience)
    #: Who may ask whether work is being done: "public", "private" or "off".
    API_READY: str = _setting("public", _audience)
    #: What executes: "celery", or "inline" (here and now, for tests).
    EXECUTOR: Literal["celery", "inline"] = _setting("celery", _executor)
    #: The Celery app of the workers and beat, as "project.celery:app"; None: the app
    #: that the worker was started with, elsewhere Celery's default app.
    CELERY_APP: str | None = _setting(None, _optional_text)
    #: The Celery queue whose workers hear of new events. Functions name their own.
    QUEUE: str = _setting("default", _text)
    #: What comes before the names of our queues on the broker, for two installations
    #: on one broker.
    QUEUE_PREFIX: str = _setting("", _prefix)
    #: The Celery queue of the tick; None, as written, is QUEUE.
    TICK_QUEUE: str = _setting(None, _optional_text)
    #: Runs that a worker claims at once.
    CLAIM_BATCH: int = _setting(8, _count)
    #: How long one wake-up keeps its worker claiming.
    DRAIN_TIME: timedelta = _setting("1s", _duration)
    #: Attempts that may die with their worker before the run fails.
    MAX_CRASHES: int = _setting(5, _count)
    #: Attempts in a row that may end by a database error before the run fails.
    MAX_DATABASE_ERRORS: int = _setting(20, _count)
    #: Re-enter every step through the queue (for tests of replay).
    ALWAYS_SUSPEND: bool = _setting(False, _flag)
    #: Threads that one worker gives to the branches of a run.
    BRANCH_THREADS: int = _setting(8, _count)
    #: How long event ids and keys are remembered.
    IDEMPOTENCY_PERIOD: timedelta = _setting("24h", _duration)
    #: What the URLs of callbacks begin with; None: they have none.
    CALLBACK_BASE_URL: str | None = _setting(None, _url)
    #: How long a page may follow a run by the token that it was made with.
    PROGRESS_TOKEN_MAX_AGE: timedelta = _setting("1h", _duration)
    #: The rule that says which runs a viewer may see: a dotted path to a function.
    VISIBLE_RUNS: str | None = _setting(None, _path)
    #: Rows that one prune deletes at once.
    PRUNE_BATCH: int = _setting(1000, _count)
    #: The release that runs, for log records; None takes it from the environment:
    #: GIT_SHA, HEROKU_SLUG_COMMIT or SOURCE_VERSION.
    VERSION: str = _setting(None, _version)
    #: How long no worker may have the function of a run until people are told.
    UNKNOWN_AFTER: timedelta = _setting("10m", _duration)
    #: The database alias of the app's tables.
    DATABASE: str = _setting("default", _database)


_FIELDS = {item.name: item for item in fields(Settings)}


class _LazySettings:
    """Stand for the ``Settings`` of Django's settings; remembers what it has read."""

    def __getattr__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise AttributeError(f"There is no setting {NAME}[{name!r}].")
        value = self.__dict__[name] = _read(name, _written())
        return value

    def reload(self, *, setting: str, **kwargs: Any) -> None:
        """Forget what was read when the setting that changed may be behind it."""
        if setting in (NAME, "DATABASES"):
            self.__dict__.clear()


_lazy = _LazySettings()
#: The settings in force.
settings = cast(Settings, _lazy)
setting_changed.connect(_lazy.reload, dispatch_uid="durable_jobs.conf")


def problems() -> list[tuple[str, str]]:
    """Give a message and a hint for everything that is wrong with the settings."""
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
                continue  # it is QUEUE that is wrong, and has been found
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
