"""Handing a database call from a branch's thread to the attempt's own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Handed:
    """A database call that a branch thread asks the attempt's own thread to make."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.future: Future[Any] = Future()

    def perform(self) -> None:
        """Make the call; its result or error goes to whoever asked."""
        try:
            self.future.set_result(self.call())
        except BaseException as error:  # noqa: BLE001  # it is raised where it was asked for
            self.future.set_exception(error)
