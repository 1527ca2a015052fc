"""The installation, its worker processes, and functions that no worker has."""

from __future__ import annotations

import uuid

from django.db import models
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
