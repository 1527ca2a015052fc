"""All the durable functions that the code has, by id and by trigger."""

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


#: How the ids of the app's own functions begin.
OWN = "durable_jobs."


class Registry:
    """The functions by id. Filled while modules are imported; read by everything.

    To iterate gives those of the host, without the app's own, which ``ids`` has too.
    """

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._exact: dict[str, list[tuple[Function, Event]]] = {}
        self._wild: list[tuple[Function, Event]] = []
        #: Whether any function has flow control that needs admissions.
        self.controlled = False
        self._hooks: dict[str, list[tuple[Function, Webhook]]] = {}
        #: Called with each function before it is added, once apps are ready.
        self.on_add: Callable[[Function], None] | None = None

    def add(self, function: Function) -> None:
        """Add a function; raise ``ConfigurationError`` when its id is taken."""
        known = self._functions.get(function.id)
        if known is not None and not _same_place(known, function):
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
        """Return the function; raise ``UnknownFunction`` when there is none such."""
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
        """Return the ids of all functions, the app's own too."""
        return list(self._functions)

    def __iter__(self) -> Iterator[Function]:
        known = list(self._functions.values())
        return (one for one in known if not one.id.startswith(OWN))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def listeners(self, event_name: str) -> list[tuple[Function, Event]]:
        """Return the functions with a trigger for an event of this name."""
        wild = [
            pair for pair in self._wild if pattern_matches(pair[1].name, event_name)
        ]
        return [*self._exact.get(event_name, ()), *wild]

    def model_changes(self) -> list[tuple[Function, ModelChange]]:
        """Return the functions that start on changes of models."""
        from durable_jobs.definitions.triggers import ModelChange

        return [(f, t) for f in self for t in f.triggers if isinstance(t, ModelChange)]

    def offered(self, *labels: str) -> list[Function]:
        """Return the functions that are offered in the admin of a model."""
        wanted = {label.lower() for label in labels}
        return [one for one in self if one.admin_action.lower() in wanted]

    def crons(self) -> list[tuple[Function, Cron]]:
        """Return the functions that start at times."""
        from durable_jobs.definitions.triggers import Cron

        return [(f, t) for f in self for t in f.triggers if isinstance(t, Cron)]

    def cron(self, function_id: str, text: str, tz: str) -> Cron | None:
        """Return the cron that a function declares with this text and zone."""
        from durable_jobs.definitions.triggers import Cron

        function = self.find(function_id)
        for trigger in function.triggers if function else ():
            if isinstance(trigger, Cron) and (trigger.text, trigger.tz) == (text, tz):
                return trigger
        return None

    def webhooks(self, path: str) -> list[tuple[Function, Webhook]]:
        """Return the functions that start on what is posted to a path."""
        return list(self._hooks.get(path, ()))

    def paths(self) -> list[str]:
        """Return the paths of webhooks."""
        return sorted(self._hooks)

    def _check_webhooks(self, function: Function) -> None:
        """Raise when a path is declared by another function, and otherwise there."""
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

    def sharing(self) -> list[str]:
        """Return the ids of the functions that share a limit with others."""
        return [
            function.id
            for function in self
            if any(one.scope == "account" for one in function.controls.concurrency)
        ]

    def queues(self) -> list[str]:
        """Return the queues that functions name."""
        return sorted({function.queue for function in self})

    @contextmanager
    def temporary(self) -> Iterator[None]:
        """Forget at the end of the block what was declared inside it."""
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
        self.controlled = any(
            function.controls.queues or function.controls.gathers
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


def _same_place(one: Function, other: Function) -> bool:
    """Tell whether a module that is imported again declares the same function again."""
    first, second = inspect.unwrap(one.body), inspect.unwrap(other.body)
    if not inspect.isfunction(first) or not inspect.isfunction(second):
        # A body that is no function may know its place itself.
        return getattr(first, "place", None) is not None and bool(first == second)
    names = {(fn.__module__, fn.__qualname__) for fn in (first, second)}
    if len(names) > 1 or "<locals>" in first.__qualname__:
        return False
    # A name that is defined twice in one module has two places there.
    lines = {fn.__code__.co_firstlineno for fn in (first, second)}
    return len(lines) == 1 or first.__globals__ is not second.__globals__


registry = Registry()
