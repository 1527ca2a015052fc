"""The URLs of the app: ``path("durable/", include("durable_jobs.urls"))``."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from durable_jobs.api import application
from durable_jobs.progress.views import data, fragment
from durable_jobs.webhooks.views import receive

app_name = "durable_jobs"

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", application.patterns()),
    path("progress/<str:token>/", data, name="progress"),
    path("progress/<str:token>/fragment/", fragment, name="progress_fragment"),
    path("webhooks/<path:path>", receive, name="webhook"),
]
