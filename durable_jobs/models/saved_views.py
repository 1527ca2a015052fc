"""Saved filters of the admin's lists."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class SavedView(models.Model):
    """A named filter of a list, private to its owner or shared.

    ``page`` is the model of the list, ``query`` its query string, and ``owner`` the
    primary key of the user.
    """

    id = models.BigAutoField(primary_key=True)
    owner = models.CharField(max_length=255)
    name = models.CharField(max_length=100)
    page = models.CharField(max_length=20)
    query = models.TextField(blank=True, default="")
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("saved view")
        verbose_name_plural = _("saved views")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["owner", "page", "name"], name="durable_saved_view_name"
            )
        ]

    def __str__(self) -> str:
        return self.name
