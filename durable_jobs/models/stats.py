"""Statistics of ended runs, and errors of the sweepers."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class RunStats(models.Model):
    """The number of runs of a function that ended with a status within five minutes.

    ``since`` is the start of the five minutes. A row without a function marks the five
    minutes as counted.
    """

    LENGTH = timedelta(minutes=5)

    id = models.BigAutoField(primary_key=True)
    since = models.DateTimeField()
    function = models.CharField(max_length=300, blank=True, default="")
    status = models.CharField(max_length=10, blank=True, default="")
    count = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = _("run statistics")
        verbose_name_plural = _("run statistics")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["since", "function", "status"], name="durable_runstats_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.since:%Y-%m-%d %H:%M} {self.function} {self.status}".rstrip()


class SweepError(models.Model):
    """An item that a sweep, a claim or the router failed to process, and will retry.

    ``kind`` and ``item`` identify the item, for example ``wait`` and ``17``. ``count``
    is the number of failures in a row since ``since``. The next try is at ``until``.
    """

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=20)
    item = models.CharField(max_length=255)
    run_id = models.UUIDField(null=True)
    message = models.TextField()
    count = models.PositiveIntegerField(default=1)
    since = models.DateTimeField()
    last_at = models.DateTimeField()
    until = models.DateTimeField()

    class Meta:
        verbose_name = _("sweep error")
        verbose_name_plural = _("sweep errors")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "item"], name="durable_sweep_error_unique"
            )
        ]
        indexes: ClassVar = [
            models.Index("until", name="durable_sweep_error_until"),
            models.Index(
                "run_id",
                name="durable_sweep_error_run",
                condition=Q(run_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.item}"
