"""The step records of one run, and how far the function has replayed them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from durable_jobs import ids, serialization
from durable_jobs.conf import settings
from durable_jobs.exceptions import LimitExceeded, NonDeterminismError
from durable_jobs.models import Run
from durable_jobs.store.steps import StepRecord


def stored_bytes(text: str | None) -> int:
    """Return the length of a string in UTF-8."""
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode())


class History:
    """The records of a run by key, and the limits on their number and size.

    ``replay_position`` is the highest position that the function has reached.
    ``divergence`` is set when the code does not match the records.
    """

    def __init__(self, run: Run, step_records: dict[str, StepRecord]) -> None:
        self.step_records = step_records
        self.replay_position = -1
        self.divergence: NonDeterminismError | None = None
        self._run = run
        self._replayed: set[str] = set()
        self._bytes = sum(
            stored_bytes(step_record.output) for step_record in step_records.values()
        )
        #: The sizes of results that are encoded but not written yet, by step key.
        self._reserved: dict[str, int] = {}
        self._position = max(
            (step_record.position for step_record in step_records.values()), default=-1
        )
        self._last_loaded = self._position
        self._lock = threading.Lock()

    # Replay

    def replay(self, key: str, name: str, kind: str) -> StepRecord | None:
        """Return the record of a step, and count the step as replayed.

        Raise ``NonDeterminismError`` if the record has another kind.
        """
        if self.divergence is not None:
            raise self.divergence  # the function caught the error and continued
        step_record = self.step_records.get(key)
        if step_record is None:
            return None
        if step_record.kind != kind:
            msg = (
                f"Step {name!r} of {self._run.function} is recorded as "
                f"{step_record.kind!r}, and the code now has it as {kind!r}. "
                f"Give the new step another id, "
                f"or keep the old one for runs in flight with ctx.patched()."
            )
            self.divergence = NonDeterminismError(msg)
            raise self.divergence
        with self._lock:
            self._mark_replayed(step_record)
        return step_record

    def replay_below(self, *keys: str) -> None:
        """Count steps and all their descendants as replayed."""
        with self._lock:
            for step_record in self.tree(keys):
                self._mark_replayed(step_record)

    def _mark_replayed(self, step_record: StepRecord) -> None:
        self._replayed.add(step_record.key)
        self.replay_position = max(self.replay_position, step_record.position)

    def tree(self, keys: Iterable[str]) -> list[StepRecord]:
        """Return the records of steps and of all their descendants."""
        step_records = list(self.step_records.values())
        level = [
            step_record
            for key in keys
            if (step_record := self.step_records.get(key)) is not None
        ]
        found = []
        while level:
            found += level
            parents = {
                ids.step_pk(self._run.pk, step_record.key) for step_record in level
            }
            level = [
                step_record
                for step_record in step_records
                if step_record.parent in parents
            ]
        return found

    @property
    def replaying(self) -> bool:
        """Return whether records of earlier attempts are still ahead of the code."""
        return self.replay_position < self._last_loaded

    def unreplayed(self) -> list[StepRecord]:
        """Return the records that the function has not reached."""
        step_records = list(self.step_records.values())
        return [
            step_record
            for step_record in step_records
            if step_record.key not in self._replayed
        ]

    # New records

    def add(self, step_record: StepRecord) -> None:
        """Add a new record, or replace one; its step counts as replayed."""
        with self._lock:
            self.step_records[step_record.key] = step_record
            self._mark_replayed(step_record)

    def add_bytes(self, step_record: StepRecord) -> None:
        """Count the size of a record that was written."""
        self._bytes += stored_bytes(step_record.output)

    def next_position(self) -> int:
        """Return the position of the next new record."""
        with self._lock:
            self._position += 1
            return self._position

    def reserve(self, step_record: StepRecord) -> None:
        """Count the size of a record before it is written with others."""
        self._reserved[step_record.key] = stored_bytes(step_record.output)

    def clear_reserved(self) -> None:
        """Forget all reserved sizes: their records are written or have failed."""
        self._reserved.clear()

    # Limits

    def check_step_count(self, name: str) -> None:
        """Raise ``LimitExceeded`` if the run cannot have one more step."""
        if len(self.step_records.keys() | self._reserved.keys()) >= settings.MAX_STEPS:
            msg = (
                f"Run {self._run.pk} of {self._run.function} has "
                f"{len(self.step_records)} steps, and step {name!r} is one more: "
                f"it may have "
                f"{settings.MAX_STEPS} (setting MAX_STEPS)."
            )
            raise LimitExceeded(msg)

    def encode(self, value: Any, name: str, *, wrapped: bool = False) -> str:
        """Return a step's result as a JSON string.

        Raise ``LimitExceeded`` if the step or the run becomes too large. ``wrapped``:
        the engine made the value from values that it had accepted before.
        """
        text = serialization.dumps(
            value,
            what=f"the result of step {name!r} of run {self._run.pk}",
            limit=settings.MAX_STEP_BYTES,
            limit_setting="MAX_STEP_BYTES",
            wrapped=wrapped,
        )
        total = self._bytes + sum(self._reserved.values()) + stored_bytes(text)
        if total > settings.MAX_RUN_BYTES:
            msg = (
                f"Run {self._run.pk} of {self._run.function} would hold {total} bytes "
                f"with step {name!r}: it may hold {settings.MAX_RUN_BYTES} (setting "
                f"MAX_RUN_BYTES)."
            )
            raise LimitExceeded(msg)
        return text
