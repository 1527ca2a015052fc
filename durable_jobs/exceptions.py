"""Every error that durable_jobs raises.

This module is at the bottom of the package: it imports no other module of it.

::

    DurableError
    ├── ConfigurationError       an invalid declaration, setting or call
    │   └── NestedStepError      a step inside the body of another step
    ├── ExpressionError          a condition that fails on an event
    ├── PayloadError             a value that cannot be stored
    ├── LimitExceeded            more steps, bytes or events than the settings allow
    ├── UnknownFunction          an unregistered function id
    ├── DuplicateKeyError        a key that was used with other data
    ├── FilterError              an invalid filter of a list
    ├── ActionNotAllowed         an action that the current state does not allow
    ├── InvalidForm              an invalid form of a decision
    ├── NonRetriableError        raised by your code: do not retry
    ├── RetryAfterError          raised by your code: retry at a given time
    ├── RemoteFailed             a remote function failed
    ├── TransactionStateError    your code left a transaction open or broken
    ├── NonDeterminismError      the code calls a recorded step as another kind
    ├── StepError                raised by a step call in the function
    │   ├── StepFailed
    │   │   └── StepTimeout
    │   ├── StepInterrupted
    │   ├── InvokeFailed
    │   ├── InvokeTimeout
    │   ├── CallbackFailed
    │   ├── CallbackTimeout
    │   ├── ApprovalRejected
    │   ├── ConditionTimeout
    │   ├── SignalTaken
    │   ├── SignalReplaced
    │   └── ParallelError
    ├── BranchCancelled          the result of a branch that was cancelled
    ├── CallbackClosed           a response to a closed callback
    └── RunError
        ├── RunFailed
        ├── RunCancelled
        └── RunNotFinished
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any


class DurableError(Exception):
    """The base class of all errors. Only subclasses are raised."""

    def __init__(self, message: str = "", *args: Any) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0], *args)

    @property
    def message(self) -> str:
        """The error as one sentence."""
        return str(self.args[0])


class ConfigurationError(DurableError):
    """A declaration, a setting or a call is invalid."""


class NestedStepError(ConfigurationError):
    """A step was called inside the body of another step."""


class ExpressionError(DurableError):
    """An expression could not be evaluated on this event."""


class PayloadError(DurableError):
    """A value cannot be stored as JSON and read back equal."""


class LimitExceeded(DurableError):
    """A limit of the installation was exceeded."""


class UnknownFunction(DurableError):
    """No durable function with this id is registered."""


class DuplicateKeyError(DurableError):
    """The key was used before with other data."""


class FilterError(DurableError):
    """A filter of a list is invalid. ``name`` is the name of the filter."""

    name = ""


class ActionNotAllowed(DurableError):
    """The current state does not allow this action."""


class InvalidForm(DurableError):
    """The form is invalid.

    ``errors`` holds the messages per field, ``form`` the bound form.
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
    """A retry would not help."""


class RetryAfterError(DurableError):
    """Retry at a given time.

    ``when`` is a delay (a timedelta, seconds, or a duration such as ``"5m"``), an aware
    datetime, or the value of a ``Retry-After`` header: seconds as a string, or an HTTP
    date. An invalid value is logged as a warning, and the backoff is used.
    """

    def __init__(
        self, when: timedelta | float | str | datetime, message: str = ""
    ) -> None:
        super().__init__(message or f"Try again after {when}.")
        self.when = when


class RemoteFailed(DurableError):
    """A remote app failed or was unreachable.

    ``error_type`` is the app's name of the error, or the problem with its response.
    ``stack`` is the app's stack trace, ``data`` further JSON data about the error.
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
    """A body changed the transaction of its database connection."""


class NonDeterminismError(DurableError):
    """The code calls a recorded step as a step of another kind."""


class StepError(DurableError):
    """A step ended without a result. Only subclasses are raised."""

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
    """The callback timed out without an answer or a heartbeat."""


class ApprovalRejected(StepError):
    """The approval was rejected."""

    @property
    def reason(self) -> str:
        """The reason of the rejection."""
        return str((self.data or {}).get("reason", ""))

    @property
    def by(self) -> str | None:
        """The primary key of the user who rejected it, as a string."""
        by: str | None = (self.data or {}).get("by")
        return by


class ConditionTimeout(StepError):
    """The condition was not met within its attempts or its timeout."""


class SignalTaken(StepError):
    """Another run already waits for this signal."""


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
    """The branch was cancelled because other branches decided the result."""


class CallbackClosed(DurableError):
    """The callback was already answered, timed out or belongs to an ended run."""


class RunError(DurableError):
    """A run has no result. Only subclasses are raised."""

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
