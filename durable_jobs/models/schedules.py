"""Schedules: crons declared in code, and crons created as rows."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.apps import apps
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from durable_jobs.definitions.cron import expression
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.runtime import runtime
from durable_jobs.definitions.triggers import CATCH_UP, OVERLAP
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models.fields import PayloadQuerySet, PayloadTextField

if TYPE_CHECKING:
    from durable_jobs.models import Run


class ScheduleQuerySet(PayloadQuerySet["Schedule"]):
    """A queryset of schedules with actions on all of them."""

    def pause(self, reason: str = "") -> int:
        """Pause each schedule; return the number that this call paused."""
        return sum(schedule.pause(reason) for schedule in self.iterator())

    def resume(self) -> int:
        """Resume each schedule; return the number that this call resumed."""
        return sum(schedule.resume() for schedule in self.iterator())


class Schedule(models.Model):
    """A cron expression that starts runs of a function.

    ``next_occurrence`` is the next time by the cron expression. The tick fires it at
    ``due_at``, which includes the jitter. ``due_at`` is null while the schedule is
    paused or its function is not declared. The update that moves both fires the
    occurrence, so that it fires once.
    """

    id = models.BigAutoField(primary_key=True)
    function = models.CharField(max_length=300)
    name = models.CharField(max_length=255, blank=True, default="")
    cron = models.CharField(max_length=255)
    tz = models.CharField(max_length=64)
    data = PayloadTextField(null=True)
    owner_model = models.CharField(max_length=201, blank=True, default="")
    owner_pk = models.CharField(max_length=255, blank=True, default="")
    declared = models.BooleanField(default=False)
    jitter = models.DurationField(null=True)
    catch_up = models.CharField(
        max_length=4, choices=[(one, one) for one in CATCH_UP], default="skip"
    )
    overlap = models.CharField(
        max_length=5, choices=[(one, one) for one in OVERLAP], default="allow"
    )
    next_occurrence = models.DateTimeField()
    due_at = models.DateTimeField(null=True)
    last_fired_at = models.DateTimeField(null=True)
    last_run = models.UUIDField(null=True)
    queued_occurrences = models.JSONField(default=list)
    paused_at = models.DateTimeField(null=True)
    reason = models.TextField(blank=True, default="")
    missing_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(null=True)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        permissions: ClassVar = [
            ("pause_schedule", _("Can pause and resume schedules")),
            ("run_schedule", _("Can run schedules now")),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["function", "cron", "tz"],
                name="durable_schedule_declared",
                condition=Q(declared=True),
            )
        ]
        indexes: ClassVar = [
            models.Index("due_at", "id", name="durable_schedule_next"),
            models.Index(
                "owner_model",
                "owner_pk",
                name="durable_schedule_owner",
                condition=~Q(owner_model=""),
            ),
            models.Index(
                "function",
                name="durable_schedule_missing",
                condition=Q(missing_at__isnull=False),
            ),
            models.Index("function", "id", name="durable_schedule_function"),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.function} {self.cron}"

    @property
    def is_paused(self) -> bool:
        """Return whether the schedule was paused when it was loaded."""
        return self.paused_at is not None

    @property
    def in_code(self) -> bool:
        """Return whether the function is declared, and the cron if it was declared."""
        if not self.declared:
            return registry.find(self.function) is not None
        return registry.cron(self.function, self.cron, self.tz) is not None

    @property
    def owner(self) -> models.Model | None:
        """Return the owner from the database, or None if there is no such row."""
        if not self.owner_model:
            return None
        try:
            model = apps.get_model(self.owner_model)
            found: models.Model | None = model._base_manager.get(pk=self.owner_pk)
        except (LookupError, ValueError, ValidationError, ObjectDoesNotExist):
            return None
        return found

    def next_fires(self, count: int = 10) -> list[datetime]:
        """Return the next occurrences in the schedule's time zone, without jitter.

        The list is empty while the schedule is paused or its function is not declared.
        """
        if self.due_at is None:
            return []
        cron, found = expression(self.cron, self.tz), [self.next_occurrence]
        while len(found) < count:
            found.append(cron.next_after(found[-1]))
        return [at.astimezone(cron.zone) for at in found[:count]]

    def pause(self, reason: str = "") -> bool:
        """Start no runs until the schedule is resumed; return whether this call did."""
        return runtime().pause_schedule(self, reason)

    def resume(self) -> bool:
        """Start runs again from now on; return whether this call did it.

        Occurrences during the pause are skipped, whatever ``catch_up`` is.
        """
        return runtime().resume_schedule(self)

    def change(self, **changes: Any) -> None:
        """Change ``cron``, ``tz``, ``data``, ``name``, ``owner`` or an option.

        The arguments are those of ``durable.schedules.create``, with the same checks.
        """
        runtime().change_schedule(self, changes)

    def run_now(self) -> Run | None:
        """Start a run at once, even if the schedule is paused, and return the run.

        ``overlap`` applies as to any occurrence. With ``"skip"``, the run may be
        skipped. With ``"queue"``, the run may have to wait; then return None.
        """
        return runtime().run_schedule(self)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Delete the schedule, but not its runs. Raise if it is declared in code."""
        if self.declared and self.in_code:
            msg = (
                f"The schedule {self.cron!r} of {self.function!r} is declared in the "
                f"code: pause it, or take the Cron out of the code."
            )
            raise ConfigurationError(msg)
        return super().delete(using, keep_parents)
