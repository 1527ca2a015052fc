"""An app elsewhere, and the functions of it that are to run."""

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

    ``id`` is the app's id in its SDK, ``url`` where it serves them. ``signing_key``:
    what both sides sign with, the second of two while they are replaced; None only for
    an app in development mode, which verifies nothing. ``timeout`` bounds each request,
    from the connection to the last byte of the reply, up to two hours.

    With a ``signing_key``, a reply without a valid signature is refused.
    ``unsigned_responses=True`` accepts replies without any, for SDKs that do not sign;
    a signature that is there is verified all the same.
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
        """How long a request may take."""
        assert isinstance(self.timeout, timedelta)
        return self.timeout

    def keys(self) -> list[str]:
        """Return the signing keys in force, the first of which signs; none if unsigned.

        Raises ``ConfigurationError`` when they are not where they should be.
        """
        if self.signing_key is None:
            return []
        assert isinstance(self.signing_key, Secrets)
        return self.signing_key.read()

    def function(self, id: str, /, **options: Any) -> durable.Function:
        """Declare the app's function ``id``; its runs are called ``<app>-<id>``.

        ``options`` are those of ``@durable.function``: its triggers, retries and flow
        control are declared here, whatever the app says of them. ``retries`` holds for
        each step.
        """
        slug = f"{self.id}-{_check_slug(id, 'the id of a function')}"
        said = {
            "name": id.replace("-", " ").capitalize(),
            "description": f"Served by the app {self.id!r}.",
        }
        caller = sys._getframe(1)
        place = (str(caller.f_globals.get("__name__")), caller.f_lineno)
        return durable.function(id=slug, **(said | options))(Served(self, slug, place))


@dataclass(eq=True, unsafe_hash=True)
class Served:
    """The body of a function that an app serves: what the engine calls.

    ``place``: the module and the line where it is declared.
    """

    app: App
    slug: str
    place: tuple[str, int]

    def __post_init__(self) -> None:
        self.__module__ = self.place[0]
        markcoroutinefunction(self)

    async def __call__(self, ctx: durable.AsyncContext) -> Any:
        """Bring a run as far as it goes, and return what its function returns."""
        # Imported late: the models are not there yet when functions are declared.
        from durable_jobs.remote.driver import drive_attempt

        return await drive_attempt(self.app, self.slug, ctx)


@checks.register(checks.Tags.security, deploy=True)
def check_apps(**kwargs: Any) -> list[checks.CheckMessage]:
    """Find apps that anybody on the way could speak for."""
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
                    hint="It runs what anybody asks of it who can reach it.",
                    id="durable_jobs.W003",
                )
            )
        elif app.unsigned_responses:
            found.append(
                checks.Warning(
                    f"App {app.id!r} has unsigned_responses=True.",
                    hint="Whoever can answer in its place decides what runs do.",
                    id="durable_jobs.W006",
                )
            )
        if urlsplit(app.url).scheme == "http":
            found.append(
                checks.Warning(
                    f"App {app.id!r} is asked without TLS.",
                    hint="Results and events can be read and changed on the way.",
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
    """Raise unless ``url`` is a plain address; its host is the project's own choice."""
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
    except ValueError:  # a port that is none, or half an IPv6 address
        plain = False
    if not plain:
        # What was given may hold a password, so it stays out of the message.
        msg = (
            f"{where}: expected the url to be http(s)://host/path, without user, query "
            f"or fragment."
        )
        raise ConfigurationError(msg)
