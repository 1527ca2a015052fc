"""A process that can die, or be failed by its database, at one hit of a failpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection

from durable_jobs import failpoints
from durable_jobs.engine.suspend import SimulatedCrash

Hit = tuple[str, str]


class Fate:
    """What befalls a process at its hit number ``at``: nothing, without a number.

    ``crash``: it is gone. Nothing that was begun goes on, whatever catches what, and
    nothing more is written, until somebody starts it anew with ``revive``. ``raise``:
    the database fails there, once. ``only``: nothing, if that hit is of another place.
    ``look`` is called at each hit, and ``left`` has what it gave.
    """

    look: Callable[[], object] | None = None

    def __init__(
        self, mode: str = "crash", at: int | None = None, only: str | None = None
    ) -> None:
        self.mode, self.at, self.only = mode, at, only
        self.place: str | None = None
        self.hits: list[Hit] = []
        self.left: list[object] = []
        self.struck = False
        self.dead = False

    def passed(self, name: str, detail: str) -> None:
        """Take note of a hit, and strike when it is the one."""
        if self.dead:
            raise SimulatedCrash("The process is gone.")
        self.hits.append((name, detail))
        if self.look is not None:
            self.left.append(self.look())
        meant = len(self.hits) - 1 == self.at and self.only in (None, name)
        if not meant and name != self.place:
            return
        self.place = None
        self.struck = True
        if self.mode == "raise":
            raise OperationalError(f"failpoint {name}")
        self.dead = True
        connection.execute_wrappers.append(_refuse)
        raise SimulatedCrash(f"The process died at {name} ({detail}).")

    def ordain(self, mode: str, place: str) -> None:
        """Let it strike once more, at the next hit of a place."""
        self.mode, self.place, self.struck = mode, place, False

    def revive(self) -> None:
        """Start the process again: what it held in memory is gone."""
        if self.dead:
            connection.execute_wrappers.remove(_refuse)
            self.dead = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let it befall the process inside the block."""
        try:
            with failpoints.watching(self.passed):
                yield
        finally:
            self.revive()


def _refuse(*call: Any) -> None:
    raise SimulatedCrash("The process is gone.")
