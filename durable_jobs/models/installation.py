"""The installation: its id, its workers, and what it has done."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class Installation(models.Model):
    """The one row that tells this installation from others on the same broker.

    ``key`` is in each message. ``other_*`` tell of the last message of another
    installation that a worker of this one received.
    """

    #: The primary key of the row.
    ONLY = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY)
    key = models.UUIDField(default=uuid.uuid4, editable=False)
    other_key = models.UUIDField(null=True, editable=False)
    other_queue = models.CharField(max_length=255, blank=True, default="")
    other_seen_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("installation")
        verbose_name_plural = _("installations")

    def __str__(self) -> str:
        return str(self.key)


class Worker(models.Model):
    """A process that ticks (``beat``) or executes (``worker``), and when it was seen.

    ``queues`` are those that a worker serves, ``functions`` the ids of those that its
    code has; None for a worker of an earlier release, which does not say.
    """

    name = models.CharField(primary_key=True, max_length=255)
    kind = models.CharField(max_length=10)
    queues = models.JSONField(default=list)
    functions = models.JSONField(null=True)
    seen_at = models.DateTimeField()
    started_at = models.DateTimeField()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.name


class MissingFunction(models.Model):
    """A function that a worker met in a run, and that no living worker has.

    ``told``: the warning about it was logged.
    """

    function = models.CharField(primary_key=True, max_length=300)
    since = models.DateTimeField()
    told = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("missing function")
        verbose_name_plural = _("missing functions")

    def __str__(self) -> str:
        return self.function


class RunStats(models.Model):
    """How many runs of a function ended with a status within five minutes.

    ``since`` is the beginning of the five minutes. The row without a function tells
    that they have been counted.
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
    """An item of a sweep, a claim or the router that failed, and is tried again.

    ``kind`` and ``item`` name it: ``wait`` 17, say. ``count`` is how often in a row it
    failed since ``since``; ``until`` is when it is tried again.
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
