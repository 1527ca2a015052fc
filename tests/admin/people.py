"""Staff users with permissions, and their forms."""

from __future__ import annotations

import html
import re
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client

from tests.admin.conftest import Page

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7|add:7 }}</pre>"


def member(name: str, *permissions: str) -> Client:
    """Log in a staff user with these permissions of the app."""
    user = User.objects.create_user(name, is_staff=True)
    found = Permission.objects.filter(
        codename__in=permissions, content_type__app_label="durable_jobs"
    )
    assert found.count() == len(permissions), permissions
    user.user_permissions.set(found)
    client = Client(enforce_csrf_checks=False)
    client.force_login(user)
    return client


def page(client: Client, address: str, status: int = 200) -> Page:
    """Request a page."""
    response = client.get(address)
    assert response.status_code == status, (address, response.status_code)
    return Page(response.content.decode())


def token(shown: Page, name: str = "token") -> str:
    """Return the id of a shown form."""
    values = [
        attrs.get("value")
        for tag, attrs in shown.tags
        if tag == "input" and attrs.get("name") == name
    ]
    assert any(values), name
    return str(values[0])


def written(shown: Page) -> str:
    """Return the text of the page's text area."""
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", shown.source, re.DOTALL)
    assert found
    return html.unescape(found[1]).strip()


def labelled(shown: Page) -> bool:
    """Return whether each visible input has a label."""
    named = {attrs.get("for") for tag, attrs in shown.tags if tag == "label"}
    inputs = [
        attrs
        for tag, attrs in shown.tags
        if tag in ("input", "select", "textarea")
        and attrs.get("type") not in ("hidden", "submit", "search")
        and attrs.get("id") != "searchbar"
    ]
    return all(attrs.get("id") in named or attrs.get("aria-label") for attrs in inputs)


def harmless(shown: Page) -> bool:
    """Return whether no markup of a payload became markup of the page."""
    for tag, attrs in shown.tags:
        if any(key.startswith("on") for key in attrs) or "style" in attrs:
            return False
        if tag == "script" and not str(attrs.get("src", "")).startswith("/"):
            return False
        if tag == "img" and attrs.get("src") == "x":
            return False
        place = attrs.get("href") or attrs.get("action") or ""
        if place.lower().strip().startswith(("javascript:", "data:")):
            return False
    return "1414" not in shown.text and "<style" not in shown.source


def posted(client: Client, address: str, **values: Any) -> Any:
    """Post a form."""
    return client.post(address, values)
