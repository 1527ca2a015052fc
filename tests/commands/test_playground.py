"""The first page of the playground."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from project.shop.models import Order, Tenant


@pytest.mark.django_db
def test_first_page_links_to_existing_pages(admin_client: Client) -> None:
    order = Order.objects.create(tenant=Tenant.objects.create(name="Ada"), total=5)
    text = Client().get("/").content.decode()
    links = re.findall('href="([^"]+)"', text)
    assert f"/orders/{order.pk}/" in links
    assert len(links) == 5
    for link in links:
        assert admin_client.get(link).status_code == 200, link
