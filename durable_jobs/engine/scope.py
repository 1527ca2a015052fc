"""Where in the function a step is called: names are counted within their scope."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from durable_jobs import ids
from durable_jobs.exceptions import ConfigurationError


@dataclass(slots=True)
class Scope:
    """The function itself (key empty), a group, or a branch.

    ``concurrent``: other branches of the run may be executing at the same time.
    ``dropped``: the others have decided without it; it may write no more.
    ``left``: a step in it has suspended it, and what it still does counts for nothing.
    """

    key: str = ""
    concurrent: bool = False
    parent: Scope | None = None
    grouped: bool = False
    dropped: bool = False
    left: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    @property
    def alive(self) -> bool:
        """Tell whether nobody has dropped this branch, or one around it."""
        return not self.dropped and (self.parent is None or self.parent.alive)

    @property
    def whole(self) -> Scope:
        """Return the function or branch that this is, or that it is a group in."""
        return self.parent.whole if self.grouped and self.parent else self

    def group(self, key: str) -> Scope:
        """Return the scope of a group that was given ``key``."""
        return Scope(key, concurrent=self.concurrent, parent=self, grouped=True)

    def branch(self, key: str) -> Scope:
        """Return the scope of a branch that was given ``key``."""
        return Scope(key, concurrent=True, parent=self)

    def next_key(self, name: str) -> str:
        """Return the key of the next step of this name.

        A name that was written as a repeat of another one looks is passed over.
        """
        repeat = self.counts.get(name, 0)
        while (text := ids.numbered(name, repeat)) in self.taken:
            repeat += 1
        self.counts[name] = repeat + 1
        self.taken.add(text)
        return ids.step_key(name, self.key, repeat)


_scope: ContextVar[Scope | None] = ContextVar("durable_scope", default=None)


def current() -> Scope:
    """Return the scope of the code that is executing."""
    scope = _scope.get()
    if scope is None:
        msg = (
            "A step is called in a thread of the function's own, or after the function "
            "has ended. Use ctx.step.parallel() or map() to do several things at once."
        )
        raise ConfigurationError(msg)
    return scope


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Make ``scope`` the current one inside the block."""
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)
