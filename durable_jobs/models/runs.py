"""Runs, and the model instances that runs were started for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from durable_jobs import ids
from durable_jobs.definitions.runtime import runtime
from durable_jobs.exceptions import RunCancelled, RunFailed, RunNotFinished
from durable_jobs.models.fields import PayloadField, PayloadQuerySet
from durable_jobs.serialization.stored import StoredPayload
from durable_jobs.serialization.tag_format import has_tags
from durable_jobs.statuses import ATTENTION, LIVE, RunStatus

if TYPE_CHECKING:
    from durable_jobs.definitions.explanation import Explanation
    from durable_jobs.definitions.flow_control import Throttle
    from durable_jobs.types import Data


class AdmissionState(models.IntegerChoices):
    """The ``backlog`` of a queued run that waits for the next admission.

    The values are negative, so that they differ from the id of any ``Backlog``.
    """

    NEW = -1, _("new")
    RESUMED = -2, _("resumed")
    #: The run was admitted and left its backlog, because it was paused for example.
    REQUEUED = -3, _("requeued")


class RunQuerySet(PayloadQuerySet["Run"]):
    """A queryset of runs with actions on all of them."""

    def live(self) -> RunQuerySet:
        """Return the runs that have not ended."""
        return self.filter(status__in=sorted(LIVE))

    def cancel(self, reason: str = "") -> int:
        """Cancel each run; return the number of runs that this call ended."""
        return sum(run.cancel(reason=reason) for run in self.iterator())

    def rerun(self) -> list[Run]:
        """Start each run again as a new run; return the new runs."""
        return [run.rerun() for run in list(self)]

    def redrive(self, rate: Throttle | None = None) -> int:
        """Redrive each failed or cancelled run; return the number of redriven runs.

        With ``rate``, the first ``burst`` runs start at once, and then one run each
        ``per / limit``.
        """
        return runtime().redrive_all(list(self.order_by("pk")), rate)


class Run(models.Model):
    """One execution of a durable function, over all its attempts.

    ``error`` is ``{"type", "message", "traceback"}``. ``trigger`` is the name of the
    event that started the run. The run may be claimed from ``due_at`` on, in the order
    of ``run_order``: ``due_at`` minus the priority in seconds. ``depth`` is the length
    of the chain of events and runs that caused the run. ``stopped_for`` is the time for
    which a redriven run had ended; it is no part of the run's duration.

    ``flow`` holds the keys of its flow control, or null without flow control.
    ``backlog`` is set while the run is queued: null if it may be claimed, else the id
    of its ``Backlog``, or an ``AdmissionState``. ``requeue_to`` is the value that
    ``backlog`` gets when the run is queued again.
    """

    Status = RunStatus

    id = models.UUIDField(primary_key=True, default=ids.new_id, editable=False)
    function = models.CharField(max_length=300)
    version = models.CharField(max_length=255, blank=True, default="")
    status = models.CharField(
        max_length=10, choices=RunStatus.choices, default=RunStatus.QUEUED
    )
    reason = models.TextField(blank=True, default="")
    trigger = models.CharField(max_length=255, default="")
    key = models.CharField(max_length=255, blank=True, default="")
    event = models.ForeignKey(
        "durable_jobs.Event",
        null=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    event_meta = models.JSONField(null=True)
    data = PayloadField(null=True)
    output = PayloadField(null=True)
    error = models.JSONField(null=True)
    parent = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        db_index=False,
        related_name="children",
    )
    parent_step = models.CharField(max_length=40, blank=True, default="")
    parent_relation = models.CharField(max_length=10, blank=True, default="")

    queue = models.CharField(max_length=255, default="default")
    flow = models.JSONField(null=True)
    backlog = models.BigIntegerField(null=True)
    requeue_to = models.BigIntegerField(null=True)
    due_at = models.DateTimeField()
    run_order = models.DateTimeField()
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    worker = models.CharField(max_length=255, blank=True, default="")
    attempt = models.PositiveIntegerField(default=0)
    claim_count = models.PositiveIntegerField(default=0)
    crash_count = models.PositiveIntegerField(default=0)
    #: Attempts in a row that a database error ended before a step was recorded.
    database_errors = models.IntegerField(default=0, db_default=0)
    wake_requested = models.BooleanField(default=False)
    #: Runs other than its parent wait for its end.
    awaited = models.BooleanField(default=False, db_default=False)
    depth = models.SmallIntegerField(default=0, db_default=0)

    queued_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    stopped_for = models.DurationField(null=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        permissions: ClassVar = [
            ("view_payload", _("Can see payloads")),
            ("start_run", _("Can start runs")),
            ("cancel_run", _("Can cancel runs")),
            ("pause_run", _("Can pause runs")),
            ("resume_run", _("Can resume runs")),
            ("retry_run", _("Can retry runs at once")),
            ("rerun_run", _("Can rerun runs")),
            ("edit_run", _("Can rerun runs with other data")),
            ("redrive_run", _("Can redrive runs")),
            ("wake_run", _("Can wake runs")),
            ("answer_run", _("Can answer waits")),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                name="durable_run_status",
                condition=Q(status__in=sorted(RunStatus.values)),
            ),
            models.CheckConstraint(
                name="durable_run_ended",
                condition=Q(ended_at__isnull=True, status__in=sorted(LIVE))
                | (Q(ended_at__isnull=False) & ~Q(status__in=sorted(LIVE))),
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                "queue",
                "run_order",
                "id",
                name="durable_run_ready",
                condition=Q(status=RunStatus.QUEUED.value, backlog__isnull=True),
            ),
            # The same per function, however many runs of other functions are queued.
            models.Index(
                "queue",
                "function",
                "run_order",
                "id",
                name="durable_run_ready_function",
                condition=Q(status=RunStatus.QUEUED.value, backlog__isnull=True),
            ),
            models.Index(
                "backlog",
                "run_order",
                "id",
                name="durable_run_backlog",
                condition=Q(status=RunStatus.QUEUED.value, backlog__isnull=False),
            ),
            models.Index(
                "due_at",
                "id",
                name="durable_run_arrived",
                condition=Q(status=RunStatus.QUEUED.value, backlog__lt=0),
            ),
            models.Index(
                "queue",
                name="durable_run_promoted",
                condition=Q(
                    status=RunStatus.QUEUED.value,
                    backlog__isnull=True,
                    flow__isnull=False,
                ),
            ),
            models.Index(
                "id",
                name="durable_run_running",
                condition=Q(lease_token__isnull=False),
            ),
            models.Index("function", "id", name="durable_run_function"),
            models.Index(
                "ended_at",
                name="durable_run_ended_at",
                condition=Q(ended_at__isnull=False),
            ),
            models.Index(
                "event", name="durable_run_event", condition=Q(event__isnull=False)
            ),
            models.Index(
                "parent", name="durable_run_parent", condition=Q(parent__isnull=False)
            ),
            models.Index("key", name="durable_run_key", condition=~Q(key="")),
            # For filters by status, among many completed runs.
            models.Index(
                "status",
                "id",
                name="durable_run_attention",
                condition=Q(status__in=sorted(ATTENTION)),
            ),
            # The same per function, without waiting runs, which change too often.
            models.Index(
                "function",
                "status",
                "id",
                name="durable_run_outcome",
                condition=Q(status__in=sorted(ATTENTION - {RunStatus.WAITING})),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.function} {self.id}"

    @property
    def worker_losses(self) -> int:
        """Return how many workers in a row died while they executed the run.

        ``crash_count`` counts in advance: a claim adds one, and the end of the attempt
        resets it.
        """
        held = self.lease_token is not None
        return max(self.crash_count - 1, 0) if held else self.crash_count

    @property
    def is_live(self) -> bool:
        """Return whether the run had not ended when it was loaded."""
        return self.status in LIVE

    def wait(self, timeout: float | None = None) -> Run:
        """Wait for the end of the run and return this run, refreshed.

        Raise ``RunNotFinished`` after ``timeout`` seconds.
        """
        runtime().wait(self, timeout)
        return self

    def result(self) -> Any:
        """Return the output; raise RunFailed, RunCancelled or RunNotFinished.

        If the output refers to a missing row or class, raise ``DoesNotExist`` or
        ``PayloadError``, as a replay does.
        """
        if self.status == RunStatus.COMPLETED:
            return self._readable_output()
        run_id = str(self.id)
        if self.status == RunStatus.FAILED:
            error = self.error or {}
            msg = (
                f"Run {run_id} of {self.function} failed: "
                f"{error.get('type', 'Error')}: {error.get('message', '')}"
            )
            raise RunFailed(msg, run_id=run_id, error=self.error)
        if self.status in (RunStatus.CANCELLED, RunStatus.SKIPPED):
            msg = f"Run {run_id} of {self.function} was {self.status}: {self.reason}"
            raise RunCancelled(msg, run_id=run_id)
        msg = f"Run {run_id} of {self.function} has not ended: it is {self.status}."
        raise RunNotFinished(msg, run_id=run_id)

    def _readable_output(self) -> Any:
        """Return the output; raise the error if it is unreadable.

        The field itself returns the stored JSON of an unreadable output.
        """
        output = self.output
        stored = self.__dict__["output"]
        if not isinstance(stored, StoredPayload) and has_tags(output):
            # ``refresh_from_db`` copies the value and not the stored payload.
            rows = Run.objects.using(self._state.db).only("output")
            fresh = rows.filter(pk=self.pk).first()
            stored = None if fresh is None else fresh.__dict__["output"]
        return stored.decoded() if isinstance(stored, StoredPayload) else output

    def explain(self) -> Explanation:
        """Explain why the run is not executing: its limit, holders and position."""
        return runtime().explain(self)

    def cancel(self, reason: str = "") -> bool:
        """Cancel the run and the runs that it invoked; return whether this call did."""
        return runtime().cancel(self, reason)

    def pause(self, reason: str = "") -> bool:
        """Start no further step until resumed; return whether this call paused it."""
        return runtime().pause(self, reason)

    def resume(self) -> bool:
        """Resume a paused run; return whether this call did it."""
        return runtime().resume(self)

    def rerun(self, from_step: str | None = None, data: Data = None) -> Run:
        """Start the run again as a new run, and return the new run.

        With ``from_step``, the steps recorded before that step are copied instead of
        executed. ``data`` replaces the run's data.
        """
        return runtime().rerun(self, from_step, data)

    def redrive(self) -> bool:
        """Continue a failed or cancelled run where it ended, with new retries.

        Return whether this call did it.
        """
        return runtime().redrive(self)


class Subject(models.Model):
    """A model instance that a run is about."""

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(
        Run,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="subjects",
    )
    model = models.CharField(max_length=201)
    object_pk = models.CharField(max_length=255)

    class Meta:
        verbose_name = _("subject")
        verbose_name_plural = _("subjects")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["model", "object_pk", "run"], name="durable_subject_unique"
            )
        ]
        indexes: ClassVar = [models.Index("run", name="durable_subject_run")]

    def __str__(self) -> str:
        return f"{self.model} {self.object_pk}"
