"""The registry of all declared functions, by id and by trigger."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from durable_jobs.definitions.names import pattern_matches
from durable_jobs.exceptions import ConfigurationError, UnknownFunction

if TYPE_CHECKING:
    from durable_jobs.definitions.function import Function
    from durable_jobs.definitions.triggers import Cron, Event, ModelChange
    from durable_jobs.definitions.webhooks import Webhook


#: The prefix of the ids of this package's own functions.
PACKAGE_PREFIX = "durable_jobs."


class Registry:
    """The declared functions by id. Filled while modules are imported.

    Iteration yields your project's functions. ``ids()`` includes this package's own.
    """

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._exact: dict[str, list[tuple[Function, Event]]] = {}
        self._wild: list[tuple[Function, Event]] = []
        #: Whether any function has flow control that needs admission.
        self.needs_admission = False
        self._hooks: dict[str, list[tuple[Function, Webhook]]] = {}
        #: Called with each function before it is added, after apps are ready.
        self.on_add: Callable[[Function], None] | None = None

    def add(self, function: Function) -> None:
        """Add a function. Raise ``ConfigurationError`` if its id is in use."""
        known = self._functions.get(function.id)
        if known is not None and not _same_declaration(known, function):
            msg = (
                f"Two durable functions have the id {function.id!r}: in "
                f"{known.body.__module__} and in {function.body.__module__}. "
                f"Give one of them another id."
            )
            raise ConfigurationError(msg)
        self._check_webhooks(function)
        if self.on_add is not None:
            self.on_add(function)
        self._functions[function.id] = function
        self._index()

    def get(self, function_id: str) -> Function:
        """Return the function. Raise ``UnknownFunction`` if the id is unknown."""
        try:
            return self._functions[function_id]
        except KeyError:
            msg = (
                f"No durable function with the id {function_id!r} is registered. Is "
                f"its module named durable.py, in an app of INSTALLED_APPS?"
            )
            raise UnknownFunction(msg) from None

    def find(self, function_id: str) -> Function | None:
        """Return the function, or None."""
        return self._functions.get(function_id)

    def ids(self) -> list[str]:
        """Return the ids of all functions, including this package's own."""
        return list(self._functions)

    def __iter__(self) -> Iterator[Function]:
        known = list(self._functions.values())
        return (each for each in known if not each.id.startswith(PACKAGE_PREFIX))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def listeners(self, event_name: str) -> list[tuple[Function, Event]]:
        """Return the functions with a trigger that matches the event name."""
        wild = [
            pair for pair in self._wild if pattern_matches(pair[1].name, event_name)
        ]
        return [*self._exact.get(event_name, ()), *wild]

    def model_changes(self) -> list[tuple[Function, ModelChange]]:
        """Return the functions with a ``ModelChange`` trigger."""
        from durable_jobs.definitions.triggers import ModelChange

        return [(f, t) for f in self for t in f.triggers if isinstance(t, ModelChange)]

    def in_admin_of(self, *labels: str) -> list[Function]:
        """Return the functions that can be started in the admin of a model."""
        wanted = {label.lower() for label in labels}
        return [each for each in self if each.admin_action.lower() in wanted]

    def crons(self) -> list[tuple[Function, Cron]]:
        """Return the functions with a ``Cron`` trigger."""
        from durable_jobs.definitions.triggers import Cron

        return [(f, t) for f in self for t in f.triggers if isinstance(t, Cron)]

    def cron(self, function_id: str, text: str, tz: str) -> Cron | None:
        """Return the ``Cron`` trigger of a function with this expression and zone."""
        from durable_jobs.definitions.triggers import Cron

        function = self.find(function_id)
        for trigger in function.triggers if function else ():
            if isinstance(trigger, Cron) and (trigger.text, trigger.tz) == (text, tz):
                return trigger
        return None

    def webhooks(self, path: str) -> list[tuple[Function, Webhook]]:
        """Return the functions with a ``Webhook`` trigger for a path."""
        return list(self._hooks.get(path, ()))

    def webhook_paths(self) -> list[str]:
        """Return the paths of all webhooks."""
        return sorted(self._hooks)

    def _check_webhooks(self, function: Function) -> None:
        """Raise if another function declares the same path differently."""
        from durable_jobs.definitions.webhooks import Webhook

        for trigger in function.triggers:
            if not isinstance(trigger, Webhook):
                continue
            for other, known in self.webhooks(trigger.path):
                if other.id != function.id and not trigger.agrees_with(known):
                    msg = (
                        f"Durable function {function.id!r}: Webhook({trigger.path!r}) "
                        f"differs from the one of {other.id!r}. A path has one verify "
                        f"and one transform: share one declaration."
                    )
                    raise ConfigurationError(msg)

    def sharing_limits(self) -> list[str]:
        """Return the ids of the functions that share a limit with others."""
        return [
            function.id
            for function in self
            if any(
                limit.scope == "account" for limit in function.flow_control.concurrency
            )
        ]

    def queues(self) -> list[str]:
        """Return the names of the functions' queues."""
        return sorted({function.queue for function in self})

    @contextmanager
    def temporary(self) -> Iterator[None]:
        """Remove functions that were declared in the block when it ends."""
        before = dict(self._functions)
        try:
            yield
        finally:
            self._functions = before
            self._index()

    def _index(self) -> None:
        from durable_jobs.definitions.triggers import Event
        from durable_jobs.definitions.webhooks import Webhook

        self._exact, self._wild, self._hooks = {}, [], {}
        self.needs_admission = any(
            function.flow_control.needs_admission or function.flow_control.buffering
            for function in self._functions.values()
        )
        for function in self._functions.values():
            for trigger in function.triggers:
                if isinstance(trigger, Webhook):
                    self._hooks.setdefault(trigger.path, []).append((function, trigger))
                if not isinstance(trigger, Event):
                    continue
                if trigger.name.endswith("*"):
                    self._wild.append((function, trigger))
                else:
                    self._exact.setdefault(trigger.name, []).append((function, trigger))


def _same_declaration(known: Function, function: Function) -> bool:
    """Return whether both come from the same place, in a module imported twice."""
    first, second = inspect.unwrap(known.body), inspect.unwrap(function.body)
    if not inspect.isfunction(first) or not inspect.isfunction(second):
        # A callable object may have a place, for example a remote function.
        return getattr(first, "place", None) is not None and bool(first == second)
    names = {(fn.__module__, fn.__qualname__) for fn in (first, second)}
    if len(names) > 1 or "<locals>" in first.__qualname__:
        return False
    # A name that is defined twice in one module has two line numbers.
    lines = {fn.__code__.co_firstlineno for fn in (first, second)}
    return len(lines) == 1 or first.__globals__ is not second.__globals__


registry = Registry()
