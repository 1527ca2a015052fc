"""The shop's place in Django."""

from __future__ import annotations

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """The app of the shop."""

    name = "project.shop"
