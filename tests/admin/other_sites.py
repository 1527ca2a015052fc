"""Two admin sites: the project's, and a second one without pages of runs."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import path

from project.shop.admin import OrderAdmin
from project.shop.models import Order
from project.urls import urlpatterns as known

desk = admin.AdminSite(name="desk")
desk.register(Order, OrderAdmin)

urlpatterns: list[Any] = [*known, path("desk/", desk.urls)]
