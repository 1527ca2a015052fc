"""End a run: alone, or together with its waits and open steps."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from durable_jobs.models import Run, Slot, Step, Wait
from durable_jobs.statuses import LIVE, STEP_ENDED
from durable_jobs.store.postgres import prepared

if TYPE_CHECKING:
    from durable_jobs.store.leases import Lease

_RUN = Run._meta.db_table
_STEP = Step._meta.db_table
_WAIT = Wait._meta.db_table
_SLOT = Slot._meta.db_table

_LIVE = ", ".join(f"'{status}'" for status in sorted(LIVE))
_STEP_ENDED = ", ".join(f"'{status}'" for status in sorted(STEP_ENDED))


class EndValues(NamedTuple):
    """Column values of a run at its end. ``output`` and ``error`` are JSON text."""

    status: str
    output: str | None
    error: str | None
    reason: str
    ended_at: datetime


#: Takes the values of ``EndValues`` in order.
_SET_ENDED = """
SET status = %s::varchar, output = %s::jsonb, error = %s::jsonb, reason = %s::text,
    ended_at = %s::timestamptz, lease_token = NULL, lease_until = NULL, crash_count = 0
"""
_FINISH = f"""
UPDATE {_RUN} {_SET_ENDED}
WHERE id = %s::uuid AND lease_token = %s::uuid AND status = 'running' AND NOT awaited
RETURNING id
"""
_FREED = f"""
, freed AS (
    UPDATE {_SLOT} SET released_at = %s::timestamptz FROM ended
    WHERE run_id = ended.id AND released_at IS NULL
)
"""  # noqa: S608  # table and column names of our own models, no values
# For a run with flow control.
_FINISH_WITH_SLOTS = f"""
WITH ended AS ({_FINISH})
{_FREED}
SELECT id FROM ended
"""  # noqa: S608  # table and column names of our own models, no values


def finish_simple(lease: Lease, values: EndValues, *, release_slots: bool) -> bool:
    """End a run without waits and children; return whether this call ended it.

    If other runs wait for its end, the run is left unchanged. With ``release_slots``,
    release the slots of the run.
    """
    arguments = [*values, *lease]
    if release_slots:
        arguments.append(values.ended_at)
        return bool(prepared.fetch(_FINISH_WITH_SLOTS, arguments))
    return bool(prepared.fetch(_FINISH, arguments))


# Only the attempt of a run creates its children, and the attempt holds this lease.
_FINISH_WITH_WAITS = f"""
WITH ended AS (
    UPDATE {_RUN} {_SET_ENDED}
    WHERE id = %s::uuid AND lease_token = %s::uuid AND status = 'running'
      AND NOT awaited AND NOT EXISTS (
        SELECT 1 FROM {_RUN} AS child
        WHERE child.parent_id = %s::uuid AND child.parent_relation = 'invoke'
          AND child.status IN ({_LIVE})
      )
    RETURNING id
), dropped AS (
    DELETE FROM {_WAIT} USING ended WHERE run_id = ended.id
), cancelled AS (
    UPDATE {_STEP} AS step
    SET status = 'cancelled', due_at = NULL, ended_at = %s::timestamptz
    FROM ended WHERE step.run_id = ended.id AND step.status NOT IN ({_STEP_ENDED})
    RETURNING step.id
)
%FREED%
SELECT ARRAY(SELECT id FROM cancelled) FROM ended
"""  # noqa: S608  # table and column names of our own models, no values


def finish_with_waits(
    lease: Lease, values: EndValues, *, release_slots: bool
) -> list[uuid.UUID] | None:
    """End a run, delete its waits and cancel its open steps; return these steps.

    Return None if the lease is lost, a run that it invoked is still live, or other runs
    wait for its end. With ``release_slots``, release the slots of the run.
    """
    arguments = [*values, *lease, lease.run_id, values.ended_at]
    text = _FINISH_WITH_WAITS.replace("%FREED%", _FREED if release_slots else "")
    if release_slots:
        arguments.append(values.ended_at)
    found = prepared.fetch(text, arguments)
    return list(found[0][0]) if found else None
