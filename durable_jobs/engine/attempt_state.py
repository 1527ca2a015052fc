"""The state of one attempt: its run, history and recorder, and whether it may go on."""

from __future__ import annotations

from collections.abc import Callable

from durable_jobs.conf import settings
from durable_jobs.definitions.function import Function
from durable_jobs.engine import time_limits
from durable_jobs.engine.history import History
from durable_jobs.engine.recorder import Recorder
from durable_jobs.engine.suspend import BranchDiscarded, Suspend, ends_attempt
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import Run
from durable_jobs.store import connection_state, db
from durable_jobs.store.connection_state import Guard
from durable_jobs.store.leases import Lease, LeaseLost
from durable_jobs.store.steps import StepRecord


class AttemptState:
    """One attempt of one run.

    ``lease_lost`` returns whether the lease is known to be lost, ``shutting_down``
    whether the worker is shutting down. ``threads``: see ``execute_attempt()``.
    """

    def __init__(
        self,
        run: Run,
        function: Function,
        step_records: dict[str, StepRecord],
        *,
        threads: int,
        lease_lost: Callable[[], bool] = lambda: False,
        shutting_down: Callable[[], bool] = lambda: False,
    ) -> None:
        assert run.lease_token is not None
        self.run = run
        self.function = function
        self.threads = threads
        self.lease_lost = lease_lost
        self.shutting_down = shutting_down
        self.lease = Lease(run.pk, run.lease_token)
        self.history = History(run, step_records)
        self.recorder = Recorder(run, self.lease, self.history)
        self.move_to_queue: str | None = None
        self.requeue = False
        self.abort_error: BaseException | None = None
        #: The state of this thread's connections before user code runs.
        self.guard = Guard()

    @property
    def holds_slots(self) -> bool:
        """Return whether the attempt holds slots, one per step that executes."""
        return self.run.requeue_to is not None

    def check_may_start(self, queue: str | None = None) -> None:
        """Raise if no body must start in this attempt, or in this queue."""
        self.check_may_continue()
        wanted = queue or self.function.queue
        if self.run.queue != wanted:
            self.move_to_queue = wanted
            raise Suspend

    def check_may_continue(self) -> None:
        """Raise if the lease is lost, the run is paused, or the worker must stop."""
        self.check_alive()
        if self.recorder.paused:
            raise Suspend
        # Without progress, the next worker would requeue the run at the same place.
        if self.shutting_down() or (
            self.recorder.progress and time_limits.nearly_over()
        ):
            self.requeue = True
            raise Suspend

    def check_alive(self) -> None:
        """Raise if the attempt has ended or its lease is lost."""
        if self.recorder.closed:
            raise BranchDiscarded  # this thread outlasts the attempt
        if self.lease_lost():
            raise LeaseLost

    def check_no_open_transaction(self, name: str) -> None:
        """Raise ``ConfigurationError`` if the function has an open transaction."""
        in_attempt_thread = self.recorder.on_own_thread
        around = self.guard.depth(db.alias()) if in_attempt_thread else 0
        if connection_state.depth(db.connection()) > around:
            msg = (
                f"Step {name!r} is called inside a transaction (transaction.atomic(), "
                f"BEGIN or set_autocommit(False)): a rollback would undo its record "
                f"but not what it did. Call it outside, or use ctx.step.atomic()."
            )
            raise ConfigurationError(msg)

    def reraise_abort_error(self, error: BaseException | None = None) -> None:
        """Raise the error that ended the attempt, again on each call."""
        if self.abort_error is None and ends_attempt(error):
            self.abort_error = error
        if self.abort_error is not None:
            raise self.abort_error

    def suspend_if_always(self) -> None:
        """Suspend after each step if ``ALWAYS_SUSPEND`` is set, to test replay."""
        if settings.ALWAYS_SUSPEND:
            self.requeue = True
            raise Suspend
