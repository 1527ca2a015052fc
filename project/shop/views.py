"""What a tenant sees of an order: no login, as after a link in a mail."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from durable_jobs import durable
from project.shop.models import Order


def order(request: HttpRequest, pk: int) -> HttpResponse:
    """Show an order, and how far the newest run about it is."""
    found = get_object_or_404(Order, pk=pk)
    run = durable.runs_for(found).first()
    return render(request, "shop/order.html", {"order": found, "run": run})
