"""Who acts, and what they may do."""

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
    """Who acts: a user, and by which way when it is not the admin itself.

    ``scopes`` are those of the key that acts in the user's name; None: no key, and all
    that the user may do. ``events`` are prefixes of the names that it may send, all
    when empty. ``key`` is the key's primary key. ``space`` is the name space of the
    event ids and the start keys that it sends.
    """

    user: Any
    via: str = ""
    scopes: frozenset[str] | None = None
    events: tuple[str, ...] = ()
    key: int | None = None
    space: str = ""

    def may(self, permission: str, run: Any = None) -> bool:
        """Tell whether the actor has a permission, for all runs or for this one."""
        if not is_active(self.user) or not self.within_scope(permission):
            return False
        return allowed(self.user, permission) or (
            run is not None and allowed(self.user, permission, run)
        )

    def within_scope(self, permission: str) -> bool:
        """Tell whether the key, if there is one, covers a permission."""
        return self.scopes is None or scope_of(permission) in self.scopes

    def may_name(self, event: str) -> bool:
        """Tell whether the key, if there is one, may send events of a name."""
        return not self.events or event.startswith(self.events)

    def may_feed(self, function: Function | None) -> bool:
        """Return whether the key, if there is one, may give data to a function's runs.

        A key that is bound to names of events may if one of them starts the function.
        """
        if not self.events:
            return True
        triggers = () if function is None else function.triggers
        names = [one.name for one in triggers if isinstance(one, Event)]
        return any(pattern_overlaps(n, prefix) for n in names for prefix in self.events)

    def check_feeding(self, function: Function | None) -> None:
        """Raise ``PermissionDenied`` unless the key may give data to the runs."""
        if not self.may_feed(function):
            msg = (
                f"The key may only start functions with a trigger for events that "
                f"begin with {', '.join(map(repr, self.events))}."
            )
            raise PermissionDenied(msg)
