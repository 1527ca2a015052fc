"""Programs with keys, users with sessions, and functions to act on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client

from durable_jobs import durable
from durable_jobs.control import api_keys
from durable_jobs.control.actor import Actor
from durable_jobs.control.scopes import SCOPES
from durable_jobs.testing import Kit

V1 = "/durable/api/v1/"
JSON = "application/json"
EVERY = tuple(SCOPES)


@dataclass
class Caller:
    """A client with its credentials; cookies are checked as in a browser."""

    client: Client = field(default_factory=lambda: Client(enforce_csrf_checks=True))
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, params: Any = None, **headers: str) -> Any:
        """Send a GET request."""
        return self.client.get(V1 + path, params, headers={**self.headers, **headers})

    def post(
        self, path: str, body: Any = None, kind: str = JSON, **headers: str
    ) -> Any:
        """Post JSON, or raw bytes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(
            V1 + path,
            b"" if body is None else raw,
            content_type=kind,
            headers={**self.headers, **headers},
        )


@pytest.fixture(autouse=True)
def fresh_counts() -> Iterator[None]:
    """Reset the request counters."""
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def kit(db: None) -> Iterator[Kit]:
    """Yield a kit whose time is a Wednesday's noon in UTC."""
    with Kit(now=datetime(2026, 3, 4, 12, tzinfo=UTC)) as kit:
        yield kit


def user_with(*permissions: str, **values: Any) -> User:
    """Create a user with permissions of the app."""
    number = User.objects.count()
    user = User.objects.create_user(f"user{number}", **values)
    user.user_permissions.set(
        Permission.objects.filter(
            codename__in=permissions, content_type__app_label="durable_jobs"
        )
    )
    return user


def program_of(user: User, *scopes: str, **options: Any) -> Caller:
    """Return a client with an API key of a user."""
    maker = User.objects.create_superuser(f"maker{User.objects.count()}")
    made = api_keys.create(Actor(maker), "tests", scopes, **options)
    made.key.owner = str(user.pk)
    made.key.save()
    return Caller(headers={"Authorization": f"Bearer {made.text}"})


def person_of(user: User) -> Caller:
    """Return a client with a session and a CSRF token."""
    caller = Caller()
    caller.client.force_login(user)
    token = "t" * 32
    caller.client.cookies["csrftoken"] = token
    caller.headers["X-CSRFToken"] = token
    return caller


@pytest.fixture
def program(db: None) -> Callable[..., Caller]:
    """Return a client of a privileged user; its key has all scopes by default."""

    def make(*scopes: str, **options: Any) -> Caller:
        user = User.objects.create_superuser(f"owner{User.objects.count()}")
        return program_of(user, *(scopes or EVERY), **options)

    return make


@pytest.fixture
def api(program: Callable[..., Caller]) -> Caller:
    """Return a client that may do everything."""
    return program()


@pytest.fixture
def sleeper(kit: Kit) -> durable.Function:
    """Declare a function that sleeps for a day in the middle."""

    @durable.function(id="tests.sleeper", on=durable.Event("tests/slept"))
    def sleeper(ctx: durable.Context) -> Any:
        ctx.step.run("before", lambda: {"secret": "s3cret"})
        ctx.step.sleep("night", "1d")
        return {"slept": ctx.event.data.get("bed")}

    return sleeper


@pytest.fixture
def failing(kit: Kit) -> durable.Function:
    """Declare a function that fails with a message that leaks a secret."""

    @durable.function(id="tests.failing", retries=0)
    def failing(ctx: durable.Context) -> None:
        def body() -> None:
            raise ValueError("the password is s3cret")

        ctx.step.run("break", body)

    return failing


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Check that the response is a problem document, and return it."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == status
    assert found["code"] == code, found
    assert found["title"]
    assert found["detail"]
    assert found["type"] == "about:blank"
    return found
