"""How many events and runs, one caused by the other, led to what happens now.

A function that sends the event that starts it would go on for ever. So each event and
each run has a depth: 0 for what comes from outside, one more for what a run sends,
invokes or starts. Past ``MAX_DEPTH`` that fails, and says what led to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durable_jobs.conf import settings
from durable_jobs.definitions import current
from durable_jobs.exceptions import LimitExceeded
from durable_jobs.models import Run

#: What a run's origin keeps of what led to it: the latest links of the chain.
CHAIN = "chain"
DEPTH = "depth"
LINKS = 6


def running() -> Run | None:
    """Return the run whose code is executing."""
    found = current.run.get()
    return found if isinstance(found, Run) else None


def depth() -> int:
    """Return the depth of what the code that is executing causes."""
    return below(running())


def below(run: Run | None) -> int:
    """Return the depth of what a run causes; 0 for what no run does."""
    return 0 if run is None else run.depth + 1


def marked(
    origin: Mapping[str, Any], by: Run | None, event: str = ""
) -> dict[str, Any]:
    """Return the origin of a run with the chain that led to it.

    ``by`` is the run that caused it, ``event`` the name of the event in between.
    """
    kept = {key: origin[key] for key in origin if key not in (CHAIN, DEPTH)}
    if by is None:
        return kept
    links = _links(by, event)
    return kept | {CHAIN: links[-LINKS:], DEPTH: below(by)}


def check(what: str) -> None:
    """Raise ``LimitExceeded`` if the code that is executing is too deep to cause it."""
    run = running()
    if below(run) <= settings.MAX_DEPTH or run is None:
        return
    chain = " → ".join([*_links(run, ""), what])
    msg = (
        f"Expected at most {settings.MAX_DEPTH} events and runs, one caused by the "
        f"other (setting MAX_DEPTH), got one more: {chain}. Check whether {what} "
        f"starts what sends or starts it."
    )
    raise LimitExceeded(msg)


def too_deep(run: Run) -> bool:
    """Return whether what a run causes would be past the limit."""
    return below(run) > settings.MAX_DEPTH


def depth_in(origins: Sequence[Mapping[str, Any]]) -> int:
    """Return the largest depth that origins hold."""
    return max((int(one.get(DEPTH, 0)) for one in origins), default=0)


def _links(run: Run, event: str) -> list[str]:
    """Return what led to a run, the run, and the event that it sent."""
    before = (run.event_meta or {}).get(CHAIN, [])
    links = [*before, f"{run.function} (run {run.pk})"]
    return [*links, f"event {event}"] if event else links
