"""A simulated process that crashes, or loses its database, at one failpoint hit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection

from durable_jobs import failpoints
from durable_jobs.engine.suspend import SimulatedCrash

Hit = tuple[str, str]


class Fate:
    """A fault at hit number ``at`` of a process. Without a number, no fault.

    ``crash``: the process dies. All later calls raise and nothing is written until
    ``revive``. ``raise``: the database fails once at that hit. ``only``: the fault
    applies only if the hit is at that failpoint. ``look`` is called at each hit;
    ``left`` collects its results.
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
        """Record a hit, and inject the fault if this is the chosen hit."""
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
        """Inject one more fault, at the next hit of a failpoint."""
        self.mode, self.place, self.struck = mode, place, False

    def revive(self) -> None:
        """Restart the process with empty memory."""
        if self.dead:
            connection.execute_wrappers.remove(_refuse)
            self.dead = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Apply the fault to the process inside the block."""
        try:
            with failpoints.watching(self.passed):
                yield
        finally:
            self.revive()


def _refuse(*call: Any) -> None:
    raise SimulatedCrash("The process is gone.")
