"""The steps of runs and their failed attempts."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import F, Func, Q, TextField
from django.utils.translation import gettext_lazy as _

from durable_jobs.models.fields import PayloadQuerySet, PayloadTextField
from durable_jobs.models.runs import Run
from durable_jobs.statuses import STEP_ENDED, StepStatus


class EventOf(Func):
    """The id of the event that ended a wait, read from the ``detail`` of its step.

    The SQL has no parameter, so that an index and a query have the same expression.
    """

    template = "(%(expressions)s ->> 'event')"
    arity = 1
    output_field = TextField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Use a function, for versions of SQLite without the ``->>`` operator."""
        template = "JSON_EXTRACT(%(expressions)s, '$.event')"
        return self.as_sql(compiler, connection, template=template, **context)


#: Kinds of steps that an event may end.
EVENT_WAITS = ("wait_for_any", "wait_for_event")


#: Columns that may be large. Only the page of the step shows them.
STEP_PAYLOADS = ("input", "output", "error", "detail", "logs")


#: Steps that have not ended.
OPEN = Q(status__in=sorted(set(StepStatus.values) - STEP_ENDED))


class StepQuerySet(PayloadQuerySet["Step"]):
    """A queryset of steps."""


class Step(models.Model):
    """One step of a run: open, or ended with its recorded result.

    ``key`` identifies the step in its run. The primary key is derived from the run and
    the key, so that a step is unique without another index. ``name`` is the id as
    written in the code. ``attempt`` is the number of failed attempts. ``position`` is
    the order of recording. ``input`` holds the arguments of the body, ``logs`` the log
    lines of its last attempt. Both are for people; no attempt reads them.
    """

    Status = StepStatus

    id = models.UUIDField(primary_key=True, editable=False)
    run = models.ForeignKey(
        Run,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="steps",
    )
    key = models.CharField(max_length=40)
    name = models.CharField(max_length=255)
    kind = models.CharField(max_length=20)
    parent = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="children",
    )
    position = models.PositiveIntegerField(default=0)
    status = models.CharField(max_length=10, choices=StepStatus.choices)
    attempt = models.PositiveIntegerField(default=0)
    input = PayloadTextField(null=True)
    output = PayloadTextField(null=True)  # null is 'no result', "null" is None
    error = models.JSONField(null=True)
    detail = models.JSONField(null=True)
    logs = models.JSONField(null=True)
    due_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    objects = StepQuerySet.as_manager()

    class Meta:
        verbose_name = _("step")
        verbose_name_plural = _("steps")
        constraints: ClassVar = [
            models.CheckConstraint(
                name="durable_step_status",
                condition=Q(status__in=sorted(StepStatus.values)),
            ),
        ]
        indexes: ClassVar = [
            # The runs that an event has woken. Only steps that wait are in the index.
            models.Index(
                EventOf(F("detail")),
                name="durable_step_event",
                condition=Q(kind__in=EVENT_WAITS),
            ),
            models.Index(fields=["run"], name="durable_step_run"),
            # To end a step without reading all steps of its run.
            models.Index(
                fields=["run", "key"], name="durable_step_open", condition=OPEN
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


class FailedAttempt(models.Model):
    """One failed attempt of a step, or of the function itself if ``step`` is empty."""

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(
        Run,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="attempts",
    )
    step = models.CharField(max_length=40, blank=True, default="")
    number = models.PositiveIntegerField()
    error = models.JSONField()
    logs = models.JSONField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField()

    class Meta:
        verbose_name = _("failed attempt")
        verbose_name_plural = _("failed attempts")
        indexes: ClassVar = [models.Index("run", name="durable_failedattempt_run")]

    def __str__(self) -> str:
        return f"attempt {self.number + 1}"
