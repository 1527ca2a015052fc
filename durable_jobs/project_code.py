"""Call your project's code and contain its errors.

A model's ``__str__``, a permission backend and a ``ModelAdmin`` are written without
durable_jobs in mind. An error in one of them must not undo an action on a run, and an
SQL error must not break the transaction that records the action. Each helper here logs
the error and returns the cautious value instead: a short description, or no permission.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.models import Model

from durable_jobs.control_flow import reraise_control
from durable_jobs.error_text import storable_text, summary_of

logger = logging.getLogger("durable_jobs")

#: The most characters of a description.
LONGEST = 200
_BACKEND_METHODS = ("has_perm", "get_all_permissions", "has_module_perms")


@contextmanager
def contained() -> Iterator[None]:
    """Protect open transactions from an SQL error in the block.

    Open a savepoint in each open transaction of this thread. Without a transaction,
    execute no statement. Convert ``SystemExit`` and the like to an ``Exception``, since
    failures of code that is called here must not end an attempt.
    """
    with ExitStack() as stack:
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block:
                stack.enter_context(transaction.atomic(using=connection.alias))
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            reraise_control(error)
            raise RuntimeError(summary_of(error)) from error


# Names


def description_of(value: Any) -> str:
    """Return ``str(value)``, or ``<shop.Order 7>`` if that fails."""
    (text,) = descriptions_of([value])
    return text


def descriptions_of(values: Iterable[Any]) -> list[str]:
    """Return the descriptions of several values in order, as storable text."""
    every = list(values)
    found: list[str] = []
    try:
        # The __str__ of this app's models executes no query.
        with contained() if any(map(_is_foreign, every)) else nullcontext():
            found += [_text(value) for value in every]
    except DatabaseError:
        # A __str__ hid an SQL error, so the savepoint could not be released.
        logger.warning("An SQL error in a __str__ was not raised.", exc_info=True)
    return found + [fallback(value) for value in every[len(found) :]]


def fallback(value: Any) -> str:
    """Return a description that calls no project code except the primary key's."""
    if not isinstance(value, Model):
        return f"<{type(value).__qualname__}>"
    try:
        key = str(value.pk)
    except BaseException as error:  # noqa: BLE001  # a field of the project's own
        reraise_control(error)
        key = "?"
    return storable_text(f"<{value._meta.label} {key}>", LONGEST)


def _is_foreign(value: Any) -> bool:
    return not isinstance(value, Model) or value._meta.app_label != "durable_jobs"


def _text(value: Any) -> str:
    try:
        return storable_text(str(value), LONGEST)
    except BaseException as error:
        reraise_control(error)
        logger.warning("The __str__ of %s failed.", fallback(value), exc_info=True)
        return fallback(value)


# Permissions


def allowed(user: Any, permission: str, obj: Any = None) -> bool:
    """Return whether a user has a permission. False if the backend fails."""
    return safe_bool(lambda: user.has_perm(permission, obj), f"{permission} of a user")


def is_active(user: Any) -> bool:
    """Return whether a user is active. False if that fails."""
    return safe_bool(lambda: user.is_active, "whether a user is active")


def may_view(model_admin: Any, request: Any, obj: Any = None) -> bool:
    """Return whether a ``ModelAdmin`` of the project lets the viewer see its rows."""
    name = type(model_admin).__qualname__
    return safe_bool(
        lambda: model_admin.has_view_permission(request, obj), f"the view of {name}"
    )


def safe_bool(question: Callable[[], Any], what: str) -> bool:
    """Return ``bool(question())``. Log an error and return False if it fails."""
    try:
        with contained() if has_custom_permissions() else nullcontext():
            return bool(question())
    except BaseException as error:
        reraise_control(error)
        logger.exception("Could not check %s. The permission is denied.", what)
        return False


def has_custom_permissions() -> bool:
    """Return whether the project has its own code for permissions.

    Only such code can have permissions for one object, or fail.
    """
    # Django's own cannot be imported before the app registry is ready.
    from django.contrib.auth import get_backends, get_user_model
    from django.contrib.auth.backends import ModelBackend
    from django.contrib.auth.models import PermissionsMixin

    has_perm = getattr(get_user_model(), "has_perm", None)
    return has_perm is not PermissionsMixin.has_perm or any(
        not isinstance(backend, ModelBackend) or _overrides(type(backend), ModelBackend)
        for backend in get_backends()
    )


def _overrides(backend: type[Any], base: type[Any]) -> bool:
    return any(
        getattr(backend, name) is not getattr(base, name) for name in _BACKEND_METHODS
    )
