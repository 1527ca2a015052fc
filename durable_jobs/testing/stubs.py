"""Stubs: results that replace the bodies of steps, with a count of calls."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from asgiref.sync import iscoroutinefunction


class StubError(AssertionError):
    """A stub is missing, used up, or was never used."""


class Stub:
    """The results that replace the body of one step.

    ``calls`` counts the calls. ``arguments`` holds the arguments of each call.
    """

    def __init__(self, step: str, result: Any) -> None:
        self.step = step
        self.arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        several = isinstance(result, list | tuple) and bool(result)
        self._several = several
        self._results: list[Any] = [*result] if several else [result]
        #: The errors that the stub has raised on purpose.
        self.raised: list[BaseException] = []

    @property
    def calls(self) -> int:
        """How many times the step has called the stub."""
        return len(self.arguments)

    @property
    def count(self) -> int:
        """How many results it has; one that is no sequence has a single one."""
        return len(self._results)

    def body(self, report: Callable[[StubError], StubError]) -> Callable[..., Any]:
        """Return the replacement body. Call ``report`` if the results are used up."""
        found = self._next()

        def stub(*args: Any, **kwargs: Any) -> Any:
            result = self._use(args, kwargs, report)
            return result(*args, **kwargs) if callable(result) else result

        async def astub(*args: Any, **kwargs: Any) -> Any:
            return await self._use(args, kwargs, report)(*args, **kwargs)

        return astub if iscoroutinefunction(found) else stub

    def _next(self) -> Any:
        """Return the result of the next call, or None if the results are used up."""
        if not self._several:
            return self._results[0]
        return self._results[self.calls] if self.calls < len(self._results) else None

    def _use(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        report: Callable[[StubError], StubError],
    ) -> Any:
        """Count a call. Return its result or raise it."""
        result = self._next()
        self.arguments.append((args, kwargs))
        if self._several and self.calls > len(self._results):
            count = len(self._results)
            msg = (
                f"The stub of step {self.step!r} has {count} "
                f"result{'s' * (count > 1)}, and was called {self.calls} times. "
                f"Add a result, or stub the step with a callable."
            )
            raise report(StubError(msg))
        if isinstance(result, type) and issubclass(result, BaseException):
            result = result()
        if isinstance(result, BaseException):
            self.raised.append(result)
            raise result.with_traceback(None)
        return result


def left_over(made: Iterable[Stub]) -> list[str]:
    """Return a sentence for each stub with results that were never used.

    A stub that was never called at all has a sentence of its own.
    """
    return [
        f"The stub of step {stub.step!r} has {stub.count} results, and was called "
        f"{stub.calls} time{'s' * (stub.calls > 1)}."
        for stub in made
        if 0 < stub.calls < stub.count
    ]


def missing(step: str) -> StubError:
    """Return the error for a step without a stub, with ``require_stubs``."""
    msg = (
        f"Step {step!r} has no stub, and its body may not be called: the kit has "
        f"require_stubs=True. Call kit.stub({step!r}, ...)."
    )
    return StubError(msg)


def unmet(what: str, steps: Iterable[str], met: set[str]) -> list[str]:
    """Return a sentence for each named step that was never reached."""
    found = []
    for step in steps:
        close = difflib.get_close_matches(step, sorted(met), n=1)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        found.append(f"{what} for step {step!r} was never used.{guess}")
    return found
