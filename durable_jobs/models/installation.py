"""The installation: its workers."""

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
