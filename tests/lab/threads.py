"""Calls on their own connections: one beside the test, or several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

from django.db import connections


class Begun(threading.Thread):
    """A call that has begun on its own connection."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._future: Future[Any] = Future()
        self.start()

    def run(self) -> None:
        """Make the call, and close its connection."""
        try:
            try:
                given = self._call()
            finally:
                connections.close_all()
        except BaseException as error:  # noqa: BLE001  # raised in ``result``
            self._future.set_exception(error)
        else:
            self._future.set_result(given)

    def result(self, seconds: float = 20) -> Any:
        """Return the call's result, or raise its error."""
        done, _ = wait([self._future], seconds)
        assert done, "the call hangs"
        return self._future.result()


def elsewhere(call: Callable[[], Any]) -> Any:
    """Make a call on its own connection, and wait for it."""
    return Begun(call).result()


def together(
    *calls: Callable[[], Any], but: tuple[type[BaseException], ...] = ()
) -> list[Any]:
    """Make calls that begin at the same moment; return their results.

    The first error is raised here, except for errors of type ``but``, which are
    returned.
    """
    barrier = threading.Barrier(len(calls))

    def meet(call: Callable[[], Any]) -> Any:
        barrier.wait(30)
        try:
            return call()
        except but as error:
            return error

    made = [Begun(partial(meet, call)) for call in calls]
    return [one.result(60) for one in made]
