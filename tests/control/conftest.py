"""Runs to act on, and users with permissions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User

from durable_jobs.control.actor import Actor

People = Callable[..., Actor]


@pytest.fixture
def person(db: None) -> People:
    """Create a staff user with these permissions on runs."""

    def make(*actions: str, name: str = "ann") -> Actor:
        user = User.objects.create_user(name, is_staff=True)
        allow(user, *actions)
        return Actor(User.objects.get(pk=user.pk))

    return make


def allow(user: User, *actions: str) -> None:
    """Grant a user these permissions on runs, and no others."""
    names = [f"{action}_run" for action in actions]
    user.user_permissions.set(
        Permission.objects.filter(
            codename__in=names, content_type__app_label="durable_jobs"
        )
    )
