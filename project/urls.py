"""The URLs of the demo project."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from project.shop.views import home, order

urlpatterns = [
    path("", home, name="home"),
    path("admin/", admin.site.urls),
    path("durable/", include("durable_jobs.urls")),
    path("orders/<int:pk>/", order, name="order"),
]
