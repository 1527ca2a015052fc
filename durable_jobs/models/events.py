"""Events, and the idempotency keys that prevent duplicate starts."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from durable_jobs.models.fields import PayloadField, PayloadQuerySet


class EventQuerySet(PayloadQuerySet["Event"]):
    """A queryset of events."""


class Event(models.Model):
    """An event. ``pending`` is true until it has been matched against waiting steps.

    ``depth`` is the length of the chain of events and runs that caused the event.
    """

    id = models.CharField(primary_key=True, max_length=255, editable=False)
    name = models.CharField(max_length=255)
    data = PayloadField(null=True)
    user = PayloadField(null=True)
    v = models.CharField(max_length=255, blank=True, default="")
    ts = models.DateTimeField()
    received_at = models.DateTimeField()
    source = models.CharField(max_length=50, blank=True, default="")
    pending = models.BooleanField(default=True)
    #: How far the router is, if one pass was not enough; see ``events.routing``.
    routing = models.JSONField(null=True)
    route_after = models.DateTimeField(null=True)
    depth = models.SmallIntegerField(default=0, db_default=0)

    objects = EventQuerySet.as_manager()

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        permissions: ClassVar = [
            ("send_event", _("Can send events")),
            ("send_signal", _("Can send signals")),
        ]
        indexes: ClassVar = [
            models.Index("name", "received_at", name="durable_event_name"),
            models.Index("received_at", name="durable_event_received"),
            models.Index("ts", name="durable_event_pending", condition=Q(pending=True)),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.id}"


class IdempotencyKey(models.Model):
    """A key with which a function was started. It may be used again when expired."""

    id = models.BigAutoField(primary_key=True)
    function = models.CharField(max_length=300)
    key = models.CharField(max_length=300)
    run_id = models.UUIDField()
    fingerprint = models.CharField(max_length=40, blank=True, default="")
    expires_at = models.DateTimeField()

    class Meta:
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["function", "key"], name="durable_idempotency_unique"
            )
        ]
        indexes: ClassVar = [
            models.Index("expires_at", name="durable_idempotency_expiry")
        ]

    def __str__(self) -> str:
        return f"{self.function} {self.key}"
