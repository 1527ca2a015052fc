"""A provider that posts, and functions that start."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client

from durable_jobs import durable
from durable_jobs.testing import Kit

SECRET = "correct horse"
Post = Callable[..., HttpResponse]


@pytest.fixture(autouse=True)
def fresh_counts() -> Iterator[None]:
    """Reset the counters of deliveries."""
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def kit(db: None) -> Iterator[Kit]:
    """Yield a kit whose time is a Wednesday's noon in UTC."""
    cache.clear()  # deliveries of other tests, at the same noon, count too
    with Kit(now=datetime(2026, 3, 4, 12, tzinfo=UTC)) as kit:
        yield kit


@pytest.fixture
def hook(kit: Kit) -> Callable[..., durable.Function]:
    """Declare a function that starts on deliveries to a path."""

    def declare(
        path: str = "acme", id: str = "hooked", **options: Any
    ) -> durable.Function:
        options.setdefault("verify", durable.verify.GitHub(SECRET))
        made: durable.Function = durable.function(
            id=id, on=durable.Webhook(path, **options)
        )(lambda ctx: [ctx.event.name, ctx.event.data])
        return made

    return declare


@pytest.fixture
def post() -> Post:
    """Post a body to a webhook, signed as GitHub signs unless ``signed`` is False."""
    # As the browser of a logged-in user would: cookies change nothing.
    client = Client(enforce_csrf_checks=True)

    def send(
        body: Any,
        path: str = "acme",
        *,
        signed: bool = True,
        kind: str = "application/json",
        **headers: str,
    ) -> HttpResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if signed:
            given["X-Hub-Signature-256"] = "sha256=" + github(raw)
        return client.generic(  # type: ignore[return-value]  # the client's own class of it
            "POST", f"/durable/webhooks/{path}", raw, content_type=kind, headers=given
        )

    return send


def github(raw: bytes, secret: str = SECRET) -> str:
    """Sign as GitHub does."""
    return hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
