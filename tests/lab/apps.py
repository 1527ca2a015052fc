"""The lab's configuration."""

from __future__ import annotations

from django.apps import AppConfig


class LabConfig(AppConfig):
    """The app ``lab``."""

    name = "tests.lab"
    label = "lab"
    default_auto_field = "django.db.models.BigAutoField"
