"""The result of ``run.explain()``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a live run is waiting for or executing. ``str()`` returns sentences.

    ``state`` is ``"blocked"`` (by a limit), ``"throttled"``, ``"paused"``,
    ``"delayed"``, ``"arriving"`` (not yet screened), ``"unknown-function"`` (no worker
    has the function), ``"newer-version"`` (no worker has the version of this package
    that the run needs), or ``"ready"`` (for the next worker). If the run is not queued,
    ``state`` is its status.

    ``control``, ``key`` and ``limit`` describe the limit. ``holders`` are the ids of at
    most 20 runs that hold its slots. ``ahead`` counts the runs before this one in its
    backlog, up to 1,000. ``estimate`` is when the run may start, estimated from the
    runs with the same key that ended in the last hour, or None. ``waits`` has a
    sentence for each wait of the run, at most 200.
    """

    state: str
    text: str
    control: str = ""
    key: Any = None
    limit: int | None = None
    holders: list[str] = field(default_factory=list)
    ahead: int = 0
    estimate: datetime | None = None
    waits: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.text
