"""Why a run waits, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a run waits for; ``str()`` of it is a sentence or two.

    ``state`` is ``"blocked"`` (by a limit), ``"throttled"``, ``"paused"``,
    ``"delayed"``, ``"arriving"`` (nobody has looked at it yet), ``"unknown-function"``
    (no worker has it), ``"later-release"`` (no worker has the release of this package
    that the run needs), ``"ready"`` (for the next worker), or the run's status when it
    is not queued.

    ``control``, ``key`` and ``limit`` are those of the limit; ``holders`` are the ids
    of runs that have its slots, at most 20. ``ahead`` counts the runs before this one
    in its line, up to 1,000. ``estimate`` is when it may start, from how long the last
    runs took; None when nothing tells.
    """

    state: str
    text: str
    control: str = ""
    key: Any = None
    limit: int | None = None
    holders: list[str] = field(default_factory=list)
    ahead: int = 0
    estimate: datetime | None = None

    def __str__(self) -> str:
        return self.text
