"""Two tenants with the same kinds of data, and a superuser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache

from durable_jobs.control.actor import Actor
from durable_jobs.testing import Kit
from tests.visibility.worlds import World, declare

Worlds = tuple[World, World]


@pytest.fixture
def root(db: None) -> Actor:
    """Return a superuser."""
    return Actor(User.objects.create_superuser("root"))


@pytest.fixture
def worlds(root: Actor, durable_kit: Kit) -> Iterator[Worlds]:
    """Fill the installation: our tenant first, then theirs."""
    cache.clear()
    functions = declare()
    ours = World("ann", "canary-ours", durable_kit, functions)
    theirs = World("bob", "canary-theirs", durable_kit, functions)
    for world in (ours, theirs):
        world.fill(root)
    yield ours, theirs
    cache.clear()
