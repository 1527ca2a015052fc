"""The installation: its schedules and its workers."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Schedule(models.Model):
    """The next time of a cron trigger. Moving ``next_at`` is what fires it, once."""

    id = models.BigAutoField(primary_key=True)
    function = models.CharField(max_length=300)
    cron = models.CharField(max_length=255)
    tz = models.CharField(max_length=64)
    next_at = models.DateTimeField()
    fired_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["function", "cron", "tz"], name="durable_schedule_unique"
            )
        ]
        indexes: ClassVar = [models.Index("next_at", name="durable_schedule_next")]

    def __str__(self) -> str:
        return f"{self.function} {self.cron}"


class Worker(models.Model):
    """A process that ticks or executes, and when it was last seen."""

    name = models.CharField(primary_key=True, max_length=255)
    kind = models.CharField(max_length=10)
    seen_at = models.DateTimeField()
    started_at = models.DateTimeField()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.name
