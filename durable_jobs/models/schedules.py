"""Schedules: the crons that the code declares, and those that users made as rows."""

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
    """Schedules, with the actions that a person uses on many at once."""

    def pause(self, reason: str = "") -> int:
        """Pause each schedule; return how many this call paused."""
        return sum(schedule.pause(reason) for schedule in self.iterator())

    def resume(self) -> int:
        """Resume each schedule; return how many this call resumed."""
        return sum(schedule.resume() for schedule in self.iterator())


class Schedule(models.Model):
    """The times of one cron, and the next of them.

    ``slot_at`` is the next time by the cron, ``next_at`` when somebody has to look:
    that time with its jitter, and null while the schedule is paused or the code has no
    such function. Moving them is what fires a time, once.
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
        """Tell whether the schedule was paused when it was read."""
        return self.paused_at is not None

    @property
    def in_code(self) -> bool:
        """Tell whether the code has the function, and a declared cron itself."""
        if not self.declared:
            return registry.find(self.function) is not None
        return registry.cron(self.function, self.cron, self.tz) is not None

    @property
    def owner(self) -> models.Model | None:
        """Return the owner, loaded fresh; None when there is none or it is gone."""
        if not self.owner_model:
            return None
        try:
            model = apps.get_model(self.owner_model)
            found: models.Model | None = model._base_manager.get(pk=self.owner_pk)
        except (LookupError, ValueError, ValidationError, ObjectDoesNotExist):
            return None
        return found

    def next_fires(self, count: int = 10) -> list[datetime]:
        """Return the next times by the cron, in its zone, without jitter.

        None while the schedule is paused or its function is not in the code.
        """
        if self.due_at is None:
            return []
        cron, found = expression(self.cron, self.tz), [self.next_occurrence]
        while len(found) < count:
            found.append(cron.next_after(found[-1]))
        return [slot.astimezone(cron.zone) for slot in found[:count]]

    def pause(self, reason: str = "") -> bool:
        """Fire no more until resumed; return whether this call did it."""
        return runtime().pause_schedule(self, reason)

    def resume(self) -> bool:
        """Fire again, from now on; return whether this call did it.

        Times that passed meanwhile are gone, whatever ``catch_up`` says.
        """
        return runtime().resume_schedule(self)

    def change(self, **changes: Any) -> None:
        """Change ``cron``, ``tz``, ``data``, ``name``, ``owner`` or an option.

        Takes what ``durable.schedules.create`` takes, and checks it as that does.
        """
        runtime().change_schedule(self, changes)

    def run_now(self) -> Run | None:
        """Start a run at once, paused or not, and return it.

        ``overlap`` counts as at any other time: with ``"skip"`` the run may be a
        skipped one, with ``"queue"`` it may have to wait, and None is returned.
        """
        return runtime().run_schedule(self)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Delete the schedule; its runs stay. One that the code declares cannot be."""
        if self.declared and self.in_code:
            msg = (
                f"The schedule {self.cron!r} of {self.function!r} is declared in the "
                f"code: pause it, or take the Cron out of the code."
            )
            raise ConfigurationError(msg)
        return super().delete(using, keep_parents)
