"""Every error that durable_jobs raises.

This module is at the bottom of the house: it imports nothing of the project.

::

    DurableError
    ├── ConfigurationError       a declaration, setting or call that cannot work
    │   └── NestedStepError           a step inside the body of another step
    ├── ExpressionError          a condition that cannot be evaluated on an event
    ├── PayloadError             a value that cannot be stored as it is
    ├── LimitExceeded            more steps, bytes or events than the settings allow
    ├── UnknownFunction          a function id that the code does not have
    ├── DuplicateKeyError        a key used again with other data
    ├── FilterError              a condition on a list of runs that cannot be read
    ├── Refused                  an action that the state of the run does not allow
    ├── InvalidForm              a decision whose form is not filled in as it has to be
    ├── NonRetriableError             raised by users: do not try this again
    ├── RetryAfterError               raised by users: try this again, then
    ├── RemoteFailed             a function that is served elsewhere failed there
    ├── TransactionStateError    user code left a transaction open or broken
    ├── NonDeterminismError         the code met a recorded step as another kind
    ├── StepError                what a step call raises into the function
    │   ├── StepFailed
    │   │   └── StepTimeout
    │   ├── StepInterrupted
    │   ├── InvokeFailed
    │   ├── InvokeTimeout
    │   ├── CallbackFailed
    │   ├── CallbackTimeout
    │   ├── Rejected
    │   ├── ConditionTimeout
    │   ├── SignalTaken
    │   ├── SignalReplaced
    │   └── ParallelError
    ├── Cancelled                stands for a branch that the others made needless
    ├── CallbackClosed             an answer to a callback that no longer waits
    └── RunError
        ├── RunFailed
        ├── RunCancelled
        └── RunNotFinished
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any


class DurableError(Exception):
    """Something went wrong in durable_jobs. Only its descendants are raised."""

    def __init__(self, message: str = "", *args: Any) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0], *args)

    @property
    def message(self) -> str:
        """What happened, as one sentence for a person."""
        return str(self.args[0])


class ConfigurationError(DurableError):
    """A declaration, a setting or a call is not one that can work."""


class NestedStepError(ConfigurationError):
    """A step was called inside the body of another step."""


class ExpressionError(DurableError):
    """An expression could not be evaluated on this event."""


class PayloadError(DurableError):
    """A value cannot be stored as JSON and come back equal."""


class LimitExceeded(DurableError):
    """A limit of the installation was passed."""


class UnknownFunction(DurableError):
    """No durable function with this id is registered."""


class DuplicateKeyError(DurableError):
    """The key was used before, with other data."""


class FilterError(DurableError):
    """A condition on a list cannot be read; ``name`` is that of the condition."""

    name = ""


class ActionNotAllowed(DurableError):
    """This cannot be done now."""


class InvalidForm(DurableError):
    """The form is not filled in as it has to be.

    ``errors`` holds the messages for each field, ``form`` the form with them.
    """

    def __init__(
        self,
        message: str = "",
        *,
        errors: dict[str, list[str]] | None = None,
        form: Any = None,
    ) -> None:
        super().__init__(message)
        self.errors = errors or {}
        self.form = form


class NonRetriableError(DurableError):
    """Trying this again would not help."""


class RetryAfterError(DurableError):
    """Try this again at a stated time.

    ``when`` is a delay (timedelta, seconds or a duration text), an aware datetime, or
    what a ``Retry-After`` header holds: seconds as text, or an HTTP date. Anything else
    is logged as a warning, and the backoff decides.
    """

    def __init__(
        self, when: timedelta | float | str | datetime, message: str = ""
    ) -> None:
        super().__init__(message or f"Try again after {when}.")
        self.when = when


class RemoteFailed(DurableError):
    """An app that serves functions elsewhere failed, or could not be asked.

    ``error_type`` is what the app calls the error, or what is wrong with its answer.
    ``stack`` is the app's own, ``data`` what else it says of the error, as JSON has it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        error_type: str = "",
        stack: str = "",
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.error_type = error_type or type(self).__name__
        self.stack = stack
        self.data = data


class TransactionStateError(DurableError):
    """A body left its database connection in another transaction than it found."""


class NonDeterminismError(DurableError):
    """The code met a recorded step as a step of another kind."""


class StepError(DurableError):
    """A step ended without a result. Only its descendants are raised."""

    def __init__(
        self,
        message: str = "",
        *,
        error_type: str = "",
        step: str = "",
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.error_type = error_type or type(self).__name__
        self.step = step
        self.data = data


class StepFailed(StepError):
    """The step failed and its retries are used up."""


class StepTimeout(StepFailed):
    """The step's body did not end within its timeout."""


class StepInterrupted(StepError):
    """The step may run at most once, and its only attempt was interrupted."""


class InvokeFailed(StepError):
    """The invoked run ended without a result."""


class InvokeTimeout(StepError):
    """The invoked run did not end in time."""


class CallbackFailed(StepError):
    """The callback was answered with a failure."""


class CallbackTimeout(StepError):
    """The callback was not answered, or its heartbeat stopped, in time."""


class ApprovalRejected(StepError):
    """Somebody rejected what the step asked for."""

    @property
    def reason(self) -> str:
        """The reason that was given."""
        return str((self.data or {}).get("reason", ""))

    @property
    def by(self) -> str | None:
        """The primary key of the user who rejected it, as text."""
        by: str | None = (self.data or {}).get("by")
        return by


class ConditionTimeout(StepError):
    """The condition did not come true within its attempts or its time."""


class SignalTaken(StepError):
    """Another run waits for this signal already."""


class SignalReplaced(StepError):
    """Another run took over the wait for this signal."""


class ParallelError(StepError):
    """Too many branches failed for the completion policy.

    ``results`` holds every branch's result or exception, in order (a dict when the
    branches have names).
    """

    def __init__(
        self,
        message: str = "",
        *,
        results: Any = None,
        error_type: str = "",
        step: str = "",
    ) -> None:
        super().__init__(message, error_type=error_type, step=step)
        self.results = results


class BranchCancelled(DurableError):
    """The branch was cancelled because the others had decided the result."""


class CallbackClosed(DurableError):
    """Nobody waits for this callback any more."""


class RunError(DurableError):
    """A run has no result to give. Only its descendants are raised."""

    def __init__(
        self, message: str = "", *, run_id: str = "", error: Any = None
    ) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.error = error


class RunFailed(RunError):
    """The run failed."""


class RunCancelled(RunError):
    """The run was cancelled."""


class RunNotFinished(RunError):
    """The run has not ended yet."""
