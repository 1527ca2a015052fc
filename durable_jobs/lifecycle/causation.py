"""The depth of events and runs: the length of the chain that caused them.

A function that sends the event that starts it would loop forever. So each event and run
has a depth: 0 if it comes from outside, one more than the run that sends, invokes or
starts it. Beyond ``MAX_DEPTH`` that raises an error with the chain of causes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durable_jobs.conf import settings
from durable_jobs.definitions import execution
from durable_jobs.exceptions import LimitExceeded
from durable_jobs.models import Run

#: Keys in ``Run.event_meta``: the latest links of the chain, and the depth.
CHAIN = "chain"
DEPTH = "depth"
LINKS = 6


def running_run() -> Run | None:
    """Return the run whose code is executing."""
    found = execution.current_run.get()
    return found if isinstance(found, Run) else None


def depth() -> int:
    """Return the depth of events and runs that the executing code causes."""
    return depth_below(running_run())


def depth_below(run: Run | None) -> int:
    """Return the depth of events and runs that a run causes; 0 without a run."""
    return 0 if run is None else run.depth + 1


def with_chain(
    event_meta: Mapping[str, Any], cause: Run | None, event: str = ""
) -> dict[str, Any]:
    """Return the event meta of a run with the chain of its causes.

    ``cause`` is the run that caused it, ``event`` the name of the event in between.
    """
    kept = {key: event_meta[key] for key in event_meta if key not in (CHAIN, DEPTH)}
    if cause is None:
        return kept
    links = _links(cause, event)
    return kept | {CHAIN: links[-LINKS:], DEPTH: depth_below(cause)}


def check(what: str) -> None:
    """Raise ``LimitExceeded`` if the executing code must not cause ``what``."""
    run = running_run()
    if depth_below(run) <= settings.MAX_DEPTH or run is None:
        return
    chain = " → ".join([*_links(run, ""), what])
    msg = (
        f"Expected at most {settings.MAX_DEPTH} events and runs, one caused by the "
        f"other (setting MAX_DEPTH), got one more: {chain}. Check whether {what} "
        f"leads back to itself."
    )
    raise LimitExceeded(msg)


def too_deep(run: Run) -> bool:
    """Return whether events and runs that a run causes exceed the limit."""
    return depth_below(run) > settings.MAX_DEPTH


def depth_in(event_metas: Sequence[Mapping[str, Any]]) -> int:
    """Return the largest depth in the given event metas."""
    return max((int(one.get(DEPTH, 0)) for one in event_metas), default=0)


def _links(run: Run, event: str) -> list[str]:
    """Return the chain of a run: its causes, the run, and the event that it sent."""
    before = (run.event_meta or {}).get(CHAIN, [])
    links = [*before, f"{run.function} (run {run.pk})"]
    return [*links, f"event {event}"] if event else links
