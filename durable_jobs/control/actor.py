"""The actor of an action, with permissions and the scopes of an API key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied

from durable_jobs.control.scopes import scope_of
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.names import pattern_overlaps
from durable_jobs.definitions.triggers import Event
from durable_jobs.project_code import allowed, is_active


@dataclass(frozen=True, slots=True)
class Actor:
    """A user who acts, in the admin or with an API key.

    ``via`` names the key in the log. ``scopes`` are the scopes of the key, or None
    without a key. ``events`` are prefixes of the event names that the key may send; an
    empty tuple allows all names. ``key`` is the primary key of the API key. ``space``
    is the namespace of the event ids and idempotency keys that it sends.
    """

    user: Any
    via: str = ""
    scopes: frozenset[str] | None = None
    events: tuple[str, ...] = ()
    key: int | None = None
    space: str = ""

    def may(self, permission: str, run: Any = None) -> bool:
        """Return whether the actor has a permission, for all runs or for one run."""
        if not is_active(self.user) or not self.within_scope(permission):
            return False
        return allowed(self.user, permission) or (
            run is not None and allowed(self.user, permission, run)
        )

    def within_scope(self, permission: str) -> bool:
        """Return whether the scopes of the key cover a permission."""
        return self.scopes is None or scope_of(permission) in self.scopes

    def may_name(self, event: str) -> bool:
        """Return whether the key may send events of a name."""
        return not self.events or event.startswith(self.events)

    def may_set_data(self, function: Function | None) -> bool:
        """Return whether the key may set the data of a function's runs.

        A key that is limited to event names may do so if one of these events starts the
        function.
        """
        if not self.events:
            return True
        triggers = () if function is None else function.triggers
        names = [one.name for one in triggers if isinstance(one, Event)]
        return any(pattern_overlaps(n, prefix) for n in names for prefix in self.events)

    def check_may_set_data(self, function: Function | None) -> None:
        """Raise ``PermissionDenied`` unless the key may set the data of the runs."""
        if not self.may_set_data(function):
            msg = (
                f"The key may only start functions with a trigger for events that "
                f"begin with {', '.join(map(repr, self.events))}."
            )
            raise PermissionDenied(msg)
