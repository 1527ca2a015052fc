"""The home page and the page of an order. The pages need no login."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from durable_jobs import durable
from project.shop.models import Order


def home(request: HttpRequest) -> HttpResponse:
    """Show links to the admin and the API, and the newest orders."""
    orders = Order.objects.order_by("-pk")[:10]
    return render(request, "shop/home.html", {"orders": orders})


def order(request: HttpRequest, pk: int) -> HttpResponse:
    """Show an order and the progress of its newest run."""
    found = get_object_or_404(Order, pk=pk)
    run = durable.runs_for(found).first()
    return render(request, "shop/order.html", {"order": found, "run": run})
