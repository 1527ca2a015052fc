"""API keys."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class ApiKey(models.Model):
    """A key for the HTTP API. Only a digest of the key is stored.

    ``prefix`` is the beginning of the key, so that people can tell keys apart.
    ``scopes`` are the allowed actions. ``events`` are prefixes of the event names that
    the key may send; an empty list allows all names. ``owner`` is the primary key of
    the user in whose name the key acts.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = models.JSONField(default=list)
    events = models.JSONField(default=list, blank=True)
    owner = models.CharField(max_length=255, editable=False)
    created_at = models.DateTimeField(editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        permissions: ClassVar = [("revoke_apikey", _("Can revoke API keys"))]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
