"""What an endpoint may answer, for its description."""

from __future__ import annotations

from typing import Any

from durable_jobs.api.schemas import ProblemOut

#: Every endpoint may say these; 400 is Django's, of a request that is none.
ALWAYS = (400, 401, 403, 413, 422, 429)


def answers(good: dict[int, Any], *problems: int, open: bool = False) -> dict[Any, Any]:
    """Return the shapes of an endpoint's answers by status.

    ``open``: nobody is kept out, so that nobody is told so.
    """
    always = [code for code in ALWAYS if not (open and code in (401, 403))]
    return {**good, frozenset({*always, *problems}): ProblemOut}
