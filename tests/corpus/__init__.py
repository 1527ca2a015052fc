"""Generated hostile inputs: valid ones are kept, invalid ones are refused.

A usual test run always tries the same few inputs. ``CORPUS_EXAMPLES=10000`` tries that
many others of each kind, from a seed that is printed. ``CORPUS_SEED`` repeats a seed.
"""

from __future__ import annotations

import os
import random
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, seed, settings
from hypothesis.strategies import SearchStrategy

EXAMPLES = int(os.environ.get("CORPUS_EXAMPLES", 0))
SEED = int(os.environ.get("CORPUS_SEED", random.SystemRandom().getrandbits(32)))

Test = TypeVar("Test", bound=Callable[..., Any])


class Box:
    """A hostile value, wrapped so that it can be printed."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        try:
            return f"Box({self.value!r:.2000})"
        except BaseException as error:  # noqa: BLE001  # it is hostile
            return f"Box(a {type(self.value).__name__}, {type(error).__name__})"


def boxed(values: SearchStrategy[Any]) -> SearchStrategy[Box]:
    """Wrap drawn values, so that a failure can be printed."""
    return values.map(Box)


def guarded(call: Callable[[], Any]) -> Any:
    """Return a call's result, or fail with a printable message."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001  # it is hostile
        frames = traceback.extract_tb(BaseException.__traceback__.__get__(error))
        told = f"{type(error).__mro__[:2]} at {frames[-1] if frames else None}"
    raise AssertionError(f"An error escaped: {told}")


def tried(count: int) -> Callable[[Test], Test]:
    """Try ``count`` fixed inputs, or ``CORPUS_EXAMPLES`` others."""

    def decorate(test: Test) -> Test:
        chosen = settings(
            max_examples=EXAMPLES or count,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(test)
        return seed(SEED)(chosen) if EXAMPLES else chosen

    return decorate
