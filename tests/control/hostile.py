"""Code of a project that fails where durable_jobs calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from django.contrib.auth.backends import ModelBackend
from django.contrib.contenttypes.models import ContentTypeManager
from django.db import connection, transaction
from django.db.models import signals as django_signals

from durable_jobs import signals
from project.shop.models import Order

Patch = pytest.MonkeyPatch
NONSENSE = "SELECT nothing FROM nowhere"


def fail(*args: Any, **kwargs: Any) -> Any:
    """Raise what no caller expects."""
    raise ZeroDivisionError("the project's own code")


def ask_nonsense(*args: Any, **kwargs: Any) -> Any:
    """Break the transaction, and raise."""
    with connection.cursor() as cursor:
        cursor.execute(NONSENSE)


def hide_nonsense(*args: Any, **kwargs: Any) -> str:
    """Break the transaction, and hide the error."""
    with suppress(Exception):  # as a careless project does
        ask_nonsense()
    return "an order"


class Receiver:
    """A receiver without a ``__qualname__`` whose representation fails."""

    __repr__ = fail
    __call__ = fail


class FailingBackend(ModelBackend):
    """Grants what Django's own backend does, and fails when asked about an object."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Fail for objects."""
        return super().has_perm(user_obj, perm) if obj is None else fail()


class BreakingBackend(ModelBackend):
    """Breaks the transaction on every question."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Break the transaction."""
        ask_nonsense()
        return True

    has_module_perms: Any = has_perm


def method(name: str, body: Callable[..., Any]) -> Callable[[Patch], Any]:
    """Return a function that gives the project's orders a failing method."""
    return lambda patch: patch.setattr(Order, name, body, raising=False)


def _own_receivers(patch: Patch) -> Iterator[None]:
    async def asynchronous(**kwargs: Any) -> None:
        fail()

    kinds = (signals.run_created, signals.run_changed, signals.step_changed)
    receivers = [Receiver(), fail, ask_nonsense, asynchronous]
    for signal in kinds:
        for one in receivers:
            signal.connect(one, weak=False)
    yield
    for signal in kinds:
        for one in receivers:
            assert signal.disconnect(one)


def _django_receivers(patch: Patch) -> Iterator[None]:
    kinds = (
        django_signals.pre_save,
        django_signals.post_save,
        django_signals.pre_delete,
        django_signals.post_delete,
    )
    for signal in kinds:
        signal.connect(fail, weak=False)
    yield
    for signal in kinds:
        assert signal.disconnect(fail)


def _log(patch: Patch) -> None:
    patch.setattr(ContentTypeManager, "get_for_model", ask_nonsense)


LOG = "a log that cannot be written"
#: Each kind of failing code, and how it is installed.
HOSTS: dict[str, Callable[[Patch], Any]] = {
    "a __str__ that raises": method("__str__", fail),
    "a __str__ that is no text": method("__str__", lambda order: 7),
    "a __str__ that cannot be stored": method("__str__", lambda order: "\x00\ud800"),
    "a __str__ that breaks the transaction": method("__str__", ask_nonsense),
    "a __str__ that hides a broken transaction": method("__str__", hide_nonsense),
    "a get_absolute_url that raises": method("get_absolute_url", fail),
    "receivers of the app's own signals": _own_receivers,
    "receivers of all that Django saves": _django_receivers,
    LOG: _log,
}


@contextmanager
def in_place(name: str, patch: Patch) -> Iterator[None]:
    """Install failing code of the project inside the block."""
    made = HOSTS[name](patch)
    with ExitStack() as stack:
        if made is not None:
            stack.enter_context(contextmanager(lambda: made)())
        yield


def transaction_is_whole() -> bool:
    """Return whether the caller's transaction is still usable."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return bool(cursor.fetchone() == (1,))
