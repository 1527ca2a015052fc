"""The installation: its workers and what is paused."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


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


class FunctionState(models.Model):
    """What an operator said of a function: a row exists while it is paused."""

    function = models.CharField(primary_key=True, max_length=300)
    skip = models.BooleanField(default=False)
    paused_at = models.DateTimeField()

    class Meta:
        verbose_name = _("paused function")
        verbose_name_plural = _("paused functions")

    def __str__(self) -> str:
        return self.function
