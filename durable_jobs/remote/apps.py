"""Remote apps and their functions."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asgiref.sync import markcoroutinefunction
from django.core import checks

from durable_jobs import durable
from durable_jobs.definitions.names import check_name
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.secrets import SecretLike, Secrets
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from durable_jobs.types import Duration

LONGEST_CALL = timedelta(hours=2)
SLUG = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*", re.IGNORECASE)


@dataclass(frozen=True)
class App:
    """An app that serves functions with an Inngest SDK.

    ``id`` is the app's id in its SDK, and ``url`` its address. Both sides sign with the
    ``signing_key``, or with two keys during rotation. None is only for an app in
    development mode, which verifies nothing. ``timeout`` limits each request, from the
    connection to the last byte of the reply, up to two hours.

    With a ``signing_key``, a reply without a valid signature is rejected. For SDKs that
    do not sign, ``unsigned_responses=True`` accepts replies without a signature. An
    existing signature is still verified.
    """

    id: str
    url: str
    signing_key: SecretLike | None = None
    timeout: Duration = "5m"
    unsigned_responses: bool = False

    def __post_init__(self) -> None:
        _check_slug(self.id, "an app id")
        _check_url(self.url, f"app {self.id!r}")
        limit = parse_duration(self.timeout, what=f"timeout of app {self.id!r}")
        if not timedelta() < limit <= LONGEST_CALL:
            msg = (
                f"App {self.id!r}: expected a timeout of more than zero and at most "
                f"two hours, got {self.timeout!r}."
            )
            raise ConfigurationError(msg)
        object.__setattr__(self, "timeout", limit)
        if not isinstance(self.unsigned_responses, bool):
            msg = (
                f"App {self.id!r}: expected unsigned_responses to be True or False, "
                f"got {self.unsigned_responses!r:.80}."
            )
            raise ConfigurationError(msg)
        if self.signing_key is not None:
            object.__setattr__(self, "signing_key", Secrets(self.signing_key))

    @property
    def limit(self) -> timedelta:
        """The longest time of a request."""
        assert isinstance(self.timeout, timedelta)
        return self.timeout

    def keys(self) -> list[str]:
        """Return the current signing keys. The first one signs.

        Empty for an app without a key. Raise ``ConfigurationError`` if a key is
        missing.
        """
        if self.signing_key is None:
            return []
        assert isinstance(self.signing_key, Secrets)
        return self.signing_key.read()

    def function(self, id: str, /, **options: Any) -> durable.Function:
        """Declare the app's function ``id``. Its id in this project is ``<app>-<id>``.

        ``options`` are those of ``@durable.function``. Triggers, retries and flow
        control are declared here, and the app's own are ignored. ``retries`` applies to
        each step.
        """
        slug = f"{self.id}-{_check_slug(id, 'the id of a function')}"
        defaults = {
            "name": id.replace("-", " ").capitalize(),
            "description": f"Served by the app {self.id!r}.",
        }
        caller = sys._getframe(1)
        place = (str(caller.f_globals.get("__name__")), caller.f_lineno)
        return durable.function(id=slug, **(defaults | options))(
            Served(self, slug, place)
        )


@dataclass(eq=True, unsafe_hash=True)
class Served:
    """The body of a remote function, which the engine calls.

    ``place``: the module and the line of the declaration.
    """

    app: App
    slug: str
    place: tuple[str, int]

    def __post_init__(self) -> None:
        self.__module__ = self.place[0]
        markcoroutinefunction(self)

    async def __call__(self, ctx: durable.AsyncContext) -> Any:
        """Execute an attempt of a run. Return the result of the function."""
        # Imported late: functions are declared before the models are loaded.
        from durable_jobs.remote.driver import drive_attempt

        return await drive_attempt(self.app, self.slug, ctx)


@checks.register(checks.Tags.security, deploy=True)
def check_apps(**kwargs: Any) -> list[checks.CheckMessage]:
    """Find apps that an attacker on the network could impersonate."""
    bodies = (function.body for function in registry)
    served = {body.app.id: body.app for body in bodies if isinstance(body, Served)}
    found: list[checks.CheckMessage] = []
    for app in served.values():
        try:
            unsigned = not app.keys()
        except ConfigurationError as error:
            msg = f"App {app.id!r}: {error.message}"
            found.append(checks.Error(msg, id="durable_jobs.E004"))
            continue
        if unsigned:
            found.append(
                checks.Warning(
                    f"App {app.id!r} has no signing_key.",
                    hint="Anyone who can reach the app can make it run functions.",
                    id="durable_jobs.W003",
                )
            )
        elif app.unsigned_responses:
            found.append(
                checks.Warning(
                    f"App {app.id!r} has unsigned_responses=True.",
                    hint="Anyone who can answer in its place decides what runs do.",
                    id="durable_jobs.W006",
                )
            )
        if urlsplit(app.url).scheme == "http":
            found.append(
                checks.Warning(
                    f"App {app.id!r} is called without TLS.",
                    hint="Results and events can be read and changed in transit.",
                    id="durable_jobs.W004",
                )
            )
    return found


def _check_slug(value: object, what: str) -> str:
    text = check_name(value, what)
    if not SLUG.fullmatch(text):
        msg = (
            f"Expected {what} of letters and digits, with single dashes, dots or "
            f"underscores between them, got {text!r:.80}."
        )
        raise ConfigurationError(msg)
    return text


def _check_url(url: object, where: str) -> None:
    """Raise ``ConfigurationError`` unless ``url`` is a plain HTTP URL."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        plain = (
            parts is not None
            and all(char.isprintable() and not char.isspace() for char in str(url))
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not (parts.username or parts.password or parts.query or parts.fragment)
        )
    except ValueError:  # an invalid port or IPv6 address
        plain = False
    if not plain:
        # The value may contain a password, so the message does not.
        msg = (
            f"{where}: expected the url to be http(s)://host/path, without user, query "
            f"or fragment."
        )
        raise ConfigurationError(msg)
