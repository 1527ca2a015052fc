"""The options of ``Function.using``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from durable_jobs.definitions.events import check_moment
from durable_jobs.definitions.names import check_name
from durable_jobs.definitions.operations import check_length
from durable_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from durable_jobs.types import Duration

MAX_PRIORITY = 600


@dataclass(frozen=True)
class StartOptions:
    """Options for the next start of a function. Checked when created."""

    key: str | None = None
    run_after: Duration | datetime | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        if self.key is not None:
            check_name(self.key, "a key")
        if isinstance(self.run_after, datetime):
            check_moment(self.run_after, "run_after")
        elif self.run_after is not None:
            check_length(self.run_after, "run_after")
        number = isinstance(self.priority, int) and not isinstance(self.priority, bool)
        if not number or abs(self.priority) > MAX_PRIORITY:
            msg = (
                f"Expected a priority from -{MAX_PRIORITY} to {MAX_PRIORITY} seconds, "
                f"got {self.priority!r:.80}."
            )
            raise ConfigurationError(msg)

    def due(self, now: datetime) -> datetime:
        """Return when the run may start."""
        if isinstance(self.run_after, datetime):
            return max(self.run_after, now)
        if self.run_after is not None:
            return now + check_length(self.run_after, "run_after")
        return now
