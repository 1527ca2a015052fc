"""Flow control: limits in use, their slots, backlogs, event windows and pauses.

Only an admission writes limits, slots and backlogs, and only one admission runs at a
time; see ``flow_control``. The exception: the end or the suspension of a run marks its
slots as released.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from durable_jobs.models.fields import PayloadField
from durable_jobs.models.runs import Run


class Limit(models.Model):
    """One limit for one key. The row is created when the limit is first used.

    ``name`` is a digest of control, function (or account) and key. ``override``
    replaces the declared limit. ``tat`` is the theoretical arrival time of a throttle.
    ``is_dynamic``: a callable returns the limit; ``error`` is the error of its last
    call.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=40, unique=True, editable=False)
    control = models.CharField(max_length=20, editable=False)
    function = models.CharField(max_length=300, blank=True, default="", editable=False)
    key = models.CharField(max_length=300, blank=True, default="", editable=False)
    override = models.PositiveIntegerField(null=True, blank=True)
    tat = models.DateTimeField(null=True, editable=False)
    is_dynamic = models.BooleanField(default=False, editable=False)
    error = models.TextField(blank=True, default="", editable=False)
    used_at = models.DateTimeField(editable=False)

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        indexes: ClassVar = [models.Index("used_at", name="durable_limit_used")]

    def __str__(self) -> str:
        # Without the key, which only users with access to payloads may see.
        return f"{self.control} of {self.function or 'account'}"


class Slot(models.Model):
    """One use of a limit by a run, until it is released.

    ``steps``: the run holds the slot only while it executes, and not until its end.
    """

    id = models.BigAutoField(primary_key=True)
    limit = models.ForeignKey(
        Limit,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="slots",
    )
    run = models.ForeignKey(
        Run,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="slots",
    )
    steps = models.BooleanField(default=False)
    since = models.DateTimeField()
    released_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("slot")
        verbose_name_plural = _("slots")
        indexes: ClassVar = [
            models.Index("limit", "run", name="durable_slot_limit"),
            models.Index("run", name="durable_slot_run"),
            models.Index(
                "id",
                name="durable_slot_released",
                condition=Q(released_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"slot {self.pk} of limit {self.limit_id}"


class Backlog(models.Model):
    """The queue of runs behind the same limits and keys.

    ``active``: the admission may promote its first run from ``eligible_at`` on. Active
    backlogs are served round-robin, in the order of ``eligible_at`` and
    ``promoted_count``. An inactive backlog is empty or paused, or it waits for the
    limit ``blocked_on``.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=40, unique=True)
    function = models.CharField(max_length=300)
    queue = models.CharField(max_length=255)
    keys = models.JSONField()
    for_new_runs = models.BooleanField()
    active = models.BooleanField(default=False)
    eligible_at = models.DateTimeField()
    promoted_count = models.BigIntegerField(default=0)
    blocked_on = models.ForeignKey(
        Limit,
        null=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        db_index=False,
        related_name="backlogs",
    )

    class Meta:
        verbose_name = _("backlog")
        verbose_name_plural = _("backlogs")
        indexes: ClassVar = [
            models.Index(
                "queue",
                "eligible_at",
                "promoted_count",
                "id",
                name="durable_backlog_active",
                condition=Q(active=True),
            ),
            models.Index(
                "blocked_on",
                "eligible_at",
                "promoted_count",
                name="durable_backlog_blocked",
                condition=Q(blocked_on__isnull=False),
            ),
            models.Index("function", name="durable_backlog_function"),
            # Only of inactive backlogs, so that no plan uses it for active ones.
            models.Index(
                "eligible_at",
                name="durable_backlog_inactive",
                condition=Q(active=False),
            ),
        ]

    def __str__(self) -> str:
        return f"backlog {self.pk} of {self.function}"


class RateLimitHit(models.Model):
    """A start that counts in the window of a rate limit."""

    id = models.BigAutoField(primary_key=True)
    limit = models.ForeignKey(
        Limit,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="rate_limit_hits",
    )
    at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        verbose_name = _("rate limit hit")
        verbose_name_plural = _("rate limit hits")
        indexes: ClassVar = [
            models.Index("limit", "at", name="durable_ratelimithit_limit"),
            models.Index("expires_at", name="durable_ratelimithit_expiry"),
        ]

    def __str__(self) -> str:
        return f"hit at {self.at}"


class EventWindow(models.Model):
    """An open window that buffers events for one run, per function and key."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=40, unique=True)
    function = models.CharField(max_length=300)
    key = models.CharField(max_length=300, blank=True, default="")
    opened_at = models.DateTimeField()
    due_at = models.DateTimeField()
    size = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = _("event window")
        verbose_name_plural = _("event windows")
        indexes: ClassVar = [
            models.Index("due_at", name="durable_eventwindow_due"),
            models.Index("function", name="durable_eventwindow_function"),
        ]

    def __str__(self) -> str:
        return f"{self.size} events for {self.function} {self.key}".rstrip()


class BufferedEvent(models.Model):
    """An event in an event window, or in the batch of a run.

    An event without ``window`` and ``run`` has not been assigned to a window yet.
    """

    id = models.BigAutoField(primary_key=True)
    function = models.CharField(max_length=300)
    key = models.JSONField(null=True)
    window = models.ForeignKey(
        EventWindow,
        null=True,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="events",
    )
    run = models.ForeignKey(
        Run,
        null=True,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="buffered_events",
    )
    event_id = models.CharField(max_length=255)
    event_meta = models.JSONField()
    data = PayloadField(null=True)
    ts = models.DateTimeField()
    due_at = models.DateTimeField()

    class Meta:
        verbose_name = _("buffered event")
        verbose_name_plural = _("buffered events")
        indexes: ClassVar = [
            models.Index(
                "due_at",
                "id",
                name="durable_bufferedevent_fresh",
                condition=Q(window__isnull=True, run__isnull=True),
            ),
            models.Index(
                "window",
                "id",
                name="durable_bufferedevent_window",
                condition=Q(window__isnull=False),
            ),
            models.Index(
                "run",
                "id",
                name="durable_bufferedevent_run",
                condition=Q(run__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"event {self.event_id} for {self.function}"


class Pause(models.Model):
    """A paused function, key of a function, or queue.

    With ``skip``, new runs are recorded as skipped; otherwise they stay queued.
    """

    FUNCTION, KEY, QUEUE = "function", "key", "queue"

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=10)
    name = models.CharField(max_length=300)
    key = models.CharField(max_length=300, blank=True, default="")
    skip = models.BooleanField(default=False)
    reason = models.TextField(blank=True, default="")
    paused_at = models.DateTimeField()

    class Meta:
        verbose_name = _("pause")
        verbose_name_plural = _("pauses")
        permissions: ClassVar = [
            ("pause_function", _("Can pause and resume functions")),
            ("pause_queue", _("Can pause and resume queues")),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "name", "key"], name="durable_pause_unique"
            ),
            models.CheckConstraint(
                name="durable_pause_kind",
                condition=Q(kind__in=["function", "key", "queue"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
