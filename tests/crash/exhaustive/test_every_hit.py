"""A crash, or an error of the database, at every failpoint hit of every function.

The undisturbed run comes first, and counts the hits. Then, for each of them, the same
again, with the process that passes it dying there: its transaction is undone, its lease
has to run out, the client asks again, and what comes of it all must be the same.
"""

from __future__ import annotations

import pytest
from django.db import connection

from tests.crash.exhaustive.cases import CASES, Case
from tests.crash.exhaustive.dying import Fate
from tests.crash.exhaustive.world import Ending, World, clear

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def real_transactions():
    """Use the database of record, and leave nothing in it."""
    if connection.vendor != "postgresql":
        pytest.skip("transactions are undone on the database of record")
    yield
    clear()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["crash", "raise"])
def test_it_ends_as_if_nothing_had_happened(name: str, mode: str) -> None:
    build = CASES[name]
    quiet = Fate()
    expected = World(quiet).live(build)
    wrong = []
    for at, hit in enumerate(quiet.hits):
        if mode == "raise" and not fails(*hit):
            continue
        try:
            ended = befallen(build, mode, at)
            different = difference(expected, ended)
        except AssertionError as error:
            different = [str(error)]
        wrong += [f"{hit[0]} [{hit[1]}], hit {at}: {one}" for one in different]
    assert not wrong, "\n".join(wrong)


def fails(place: str, detail: str) -> bool:
    """Tell whether the database can fail at a place: a body is the user's own."""
    return not place.startswith("step.")


def befallen(build: Case, mode: str, at: int) -> Ending:
    """Live through a case with a fault at a hit."""
    fate = Fate(mode, at)
    ended = World(fate).live(build)
    assert fate.struck, "the fault did not strike"
    return ended


def difference(expected: Ending, ended: Ending) -> list[str]:
    """Say in which respects an end is not the expected one."""
    return [
        f"{what}: expected {one!r}, got {other!r}"
        for what, one, other in [
            ("runs", expected.runs, ended.runs),
            ("events", expected.events, ended.events),
            ("balance", expected.balance, ended.balance),
        ]
        if one != other
    ]
