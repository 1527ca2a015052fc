"""Whether this version of the package can execute a run that another one began.

During a rolling deploy of a new version, an old worker may claim a run with a step kind
or a serialization tag that only the new version knows. The function is then not called,
so its code cannot go on with a part of what was recorded.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable

from durable_jobs import serialization
from durable_jobs.engine.context import PATCH
from durable_jobs.engine.step_runner import GROUP, KINDS
from durable_jobs.engine.steps.parallel import BRANCH
from durable_jobs.engine.suspend import NewerVersionNeeded
from durable_jobs.models import Run
from durable_jobs.store.steps import StepRecord


@functools.cache
def kinds() -> frozenset[str]:
    """Return the kinds of steps that this version knows."""
    return frozenset({GROUP, PATCH, BRANCH, *(operation.kind for operation in KINDS)})


def check_steps(step_records: Iterable[StepRecord]) -> None:
    """Raise ``NewerVersionNeeded`` for a step that cannot be read here."""
    known = kinds()
    for step_record in step_records:
        if step_record.kind not in known:
            raise NewerVersionNeeded(
                f"step {step_record.name!r} is of the kind {step_record.kind!r}"
            )
        unknown = serialization.unknown_tags(step_record.output or "")
        if unknown:
            raise _tagged(f"the result of step {step_record.name!r}", unknown)


def check_user(run: Run) -> None:
    """Raise ``NewerVersionNeeded`` for the user of an event that cannot be read."""
    user = (run.event_meta or {}).get("user")
    if isinstance(user, dict | list):
        unknown = serialization.unknown_tags(json.dumps(user))
        if unknown:
            raise _tagged("the user of its event", unknown)


def _tagged(what: str, unknown: list[str]) -> NewerVersionNeeded:
    return NewerVersionNeeded(f"{what} has the tag {unknown[0]!r:.80}")
