"""The scope in which a step is called. Step ids are counted per scope."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from durable_jobs import ids
from durable_jobs.exceptions import ConfigurationError


@dataclass(slots=True)
class Scope:
    """The function itself (empty key), a group or a branch.

    ``concurrent``: other branches of the run may execute at the same time.
    ``discarded``: the parallel step was decided without this branch; it records nothing
    more. ``suspended``: a step in the scope has suspended it, and its further results
    are ignored.
    """

    key: str = ""
    concurrent: bool = False
    parent: Scope | None = None
    grouped: bool = False
    discarded: bool = False
    suspended: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    used_names: set[str] = field(default_factory=set)

    @property
    def alive(self) -> bool:
        """Return whether neither this branch nor one around it is discarded."""
        return not self.discarded and (self.parent is None or self.parent.alive)

    @property
    def root(self) -> Scope:
        """Return the function or branch around this scope, or the scope itself."""
        return self.parent.root if self.grouped and self.parent else self

    def group(self, key: str) -> Scope:
        """Return the scope of a group."""
        return Scope(key, concurrent=self.concurrent, parent=self, grouped=True)

    def branch(self, key: str) -> Scope:
        """Return the scope of a branch."""
        return Scope(key, concurrent=True, parent=self)

    def next_key(self, name: str) -> str:
        """Return the key of the next step with this id.

        If a step's own id looks like a repeat of another id, that number is skipped.
        """
        repeat = self.counts.get(name, 0)
        while (text := ids.numbered(name, repeat)) in self.used_names:
            repeat += 1
        self.counts[name] = repeat + 1
        self.used_names.add(text)
        return ids.step_key(name, self.key, repeat)


_scope: ContextVar[Scope | None] = ContextVar("durable_scope", default=None)


def current_scope() -> Scope:
    """Return the scope of the executing code."""
    scope = _scope.get()
    if scope is None:
        msg = (
            "A step is called in a thread that the function started, or after the "
            "function has ended. Use ctx.step.parallel() or map() to do several things "
            "at once."
        )
        raise ConfigurationError(msg)
    return scope


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)
