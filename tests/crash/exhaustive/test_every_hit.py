"""A crash, or a database error, at every failpoint hit of every function.

The undisturbed run counts the hits. Then the same case runs again for each hit, with a
fault there: the transaction rolls back, the lease expires and the client retries. The
outcome must equal the undisturbed one. Hits with identical consequences count once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from durable_jobs.failpoints import POINTS
from tests.crash.exhaustive import branches, flow, waits
from tests.crash.exhaustive.cases import CASES, FLOW, VARYING, Case
from tests.crash.exhaustive.dying import Fate, Hit
from tests.crash.exhaustive.leaving import onlooker
from tests.crash.exhaustive.world import Ending, World, clear

#: ``EXHAUSTIVE=all`` tests every hit in both modes, which takes minutes.
EVERY = os.environ.get("EXHAUSTIVE") == "all"
#: Failpoints after a commit: the error makes a committed write look failed.
AMBIGUOUS = {
    place
    for place in POINTS
    if place.endswith((".committed", ".reclaimed", ".renewed", ".given"))
}

#: Failpoints of flow control, and how many of their errors are tested per function.
OWN, MOST = ("admit.", "finish."), 8
assert branches, "the import registers its functions"
assert waits, "the import registers its functions"
assert flow, "the import registers its functions"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def cleared(simulated: None) -> Iterator[None]:
    """Leave nothing in the database."""
    yield
    clear()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["crash", "raise"])
def test_function_ends_the_same_with_a_fault_at_any_hit(name: str, mode: str) -> None:
    build = CASES[name]
    quiet = Fate()
    world = World(quiet)
    with onlooker() as one:
        if mode == "crash" and not EVERY and name not in VARYING:
            quiet.look = lambda: (world.left(), one.look())
        expected = world.live(build)
    hits = list(chosen(quiet.hits, mode, flow=name in FLOW))
    if quiet.left:
        hits = distinct(hits, quiet.left)
    wrong = []
    for at, hit in hits:
        try:
            ended = befallen(build, mode, at, hit[0] if name in VARYING else None)
            different = difference(expected, ended)
        except AssertionError as error:
            different = [str(error)]
        wrong += [f"{hit[0]} [{hit[1]}], hit {at}: {one}" for one in different]
    assert not wrong, "\n".join(wrong)


def chosen(hits: list[Hit], mode: str, *, flow: bool) -> Iterator[tuple[int, Hit]]:
    """Yield the hits to test, with their numbers.

    Of ticks, only the first and last hits count. With ``flow``, only failpoints of flow
    control count. An error before a commit equals a crash there. So ``raise`` tests
    only hits after a commit, and only some of those in flow control.
    """
    own = [at for at, hit in enumerate(hits) if hit[0].startswith(OWN)]
    if mode == "raise":
        own = own[:: max(1, len(own) // MOST)]
    ticks = [at for at, hit in enumerate(hits) if hit[0].startswith("tick.")]
    for at, hit in enumerate(hits):
        place = hit[0]
        if mode == "raise" and place.startswith("step."):
            continue
        if EVERY:
            yield at, hit
        elif at in ticks[2:-2] or (flow and at not in own):
            continue
        elif mode == "crash" or place in AMBIGUOUS:
            yield at, hit


def distinct(hits: list[tuple[int, Hit]], left: list[object]) -> list[tuple[int, Hit]]:
    """Drop hits at which a crash leaves the same state as at a later hit.

    The later hit has more work to roll back.
    """
    return list({left[at]: (at, hit) for at, hit in hits}.values())


def befallen(build: Case, mode: str, at: int, only: str | None) -> Ending:
    """Run a case with a fault at one hit, and return its ending."""
    fate = Fate(mode, at, only)
    ended = World(fate).live(build)
    assert fate.struck or only, "the fault was not injected"
    return ended


def difference(expected: Ending, ended: Ending) -> list[str]:
    """Return the differences between two endings."""
    return [
        f"{what}: expected {one!r}, got {other!r}"
        for what, one, other in [
            ("runs", expected.runs, ended.runs),
            ("events", expected.events, ended.events),
            ("balance", expected.balance, ended.balance),
        ]
        if one != other
    ]
