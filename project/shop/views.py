"""The first page, and what a tenant sees of an order: no login is asked for."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from durable_jobs import durable
from project.shop.models import Order


def home(request: HttpRequest) -> HttpResponse:
    """Show where to go: the control room, the shop, the API, and the newest orders."""
    orders = Order.objects.order_by("-pk")[:10]
    return render(request, "shop/home.html", {"orders": orders})


def order(request: HttpRequest, pk: int) -> HttpResponse:
    """Show an order, and how far the newest run about it is."""
    found = get_object_or_404(Order, pk=pk)
    run = durable.runs_for(found).first()
    return render(request, "shop/order.html", {"order": found, "run": run})
