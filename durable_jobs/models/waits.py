"""Waits: what the suspended steps of runs wait for. The table is small and hot."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from durable_jobs.models.runs import Run


class WaitKind(models.TextChoices):
    """What a wait waits for."""

    SLEEP = "sleep"
    RETRY = "retry"
    POLL = "poll"
    TIMEOUT = "timeout"
    EVENT = "event"
    SIGNAL = "signal"
    MODEL = "model"
    CHILD = "child"
    CALLBACK = "callback"
    APPROVAL = "approval"
    CANCEL = "cancel"
    START_BY = "start_by"
    FINISH_BY = "finish_by"


class Wait(models.Model):
    """One thing that may wake a run. The transaction that deletes the row wakes it.

    ``step`` is the key of the waiting step, or empty for the run itself. ``name`` is
    the event, the signal or the model. ``match`` is a hash of the values that the event
    must have, or the primary key of the instance. ``branch`` is the alternative of a
    ``wait_for_any``.
    """

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(
        Run,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="waits",
    )
    step = models.CharField(max_length=40, blank=True, default="")
    kind = models.CharField(max_length=10, choices=WaitKind.choices)
    name = models.CharField(max_length=255, blank=True, default="")
    match = models.CharField(max_length=255, blank=True, default="")
    branch = models.CharField(max_length=255, blank=True, default="")
    condition = models.JSONField(null=True)
    due_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("wait")
        verbose_name_plural = _("waits")
        constraints: ClassVar = [
            models.CheckConstraint(
                name="durable_wait_kind", condition=Q(kind__in=sorted(WaitKind.values))
            ),
            models.UniqueConstraint(
                fields=["name"],
                name="durable_wait_signal",
                condition=Q(kind=WaitKind.SIGNAL.value),
            ),
        ]
        indexes: ClassVar = [
            models.Index("run", "step", name="durable_wait_run"),
            models.Index(
                "due_at", name="durable_wait_due", condition=Q(due_at__isnull=False)
            ),
            models.Index(
                "kind",
                "name",
                "match",
                name="durable_wait_name",
                condition=~Q(name=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()
