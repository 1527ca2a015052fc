"""The addresses of the app: ``path("durable/", include("durable_jobs.urls"))``."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

app_name = "durable_jobs"

urlpatterns: list[URLPattern | URLResolver] = []
