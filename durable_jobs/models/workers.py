"""The installation, its worker processes, and functions that no worker has."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils.translation import gettext_lazy as _


class Installation(models.Model):
    """The single row that identifies this installation on a shared broker.

    Each message holds ``key``. ``other_*`` describe the last message of another
    installation that a worker of this installation received.
    """

    #: The primary key of the single row.
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
    """The heartbeat of a process that ticks (``beat``) or executes runs (``worker``).

    ``queues`` are the queues that a worker serves. ``functions`` are the ids of its
    functions, or None if the worker runs a version that does not report them.
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
    """A function that has a run, and that no live worker has.

    ``warned``: the warning about the function was logged.
    """

    function = models.CharField(primary_key=True, max_length=300)
    since = models.DateTimeField()
    warned = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("missing function")
        verbose_name_plural = _("missing functions")

    def __str__(self) -> str:
        return self.function
