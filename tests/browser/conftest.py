"""A browser, a server of the demo project with a strict policy, and a user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.test.utils import override_settings
from django.urls import reverse
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

BINARIES = ("chromium-headless-shell", "chromium")


def _chromium() -> str | None:
    return next((path for name in BINARIES if (path := shutil.which(name))), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fail clearly without a browser; CI installs one."""
    if _chromium() is not None:
        return
    why = "there is no Chromium: apt-get install chromium-headless-shell"
    for item in items:
        if "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start one browser for the tests of a module.

    Its event loop would disturb all other async tests, so it ends with the module.
    """
    # Playwright's loop runs in this thread, where Django would refuse queries.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=_chromium(), args=["--no-sandbox"]
        )
        yield found
        found.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def server(transactional_db: None, live_server: Any) -> Iterator[str]:
    """Serve the project with a strict content security policy; return its address."""
    middleware = ["tests.browser.policy.Strict", *settings.MIDDLEWARE]
    with override_settings(MIDDLEWARE=middleware, ALLOWED_HOSTS=["*"]):
        yield live_server.url


@pytest.fixture
def user(transactional_db: None) -> User:
    """Return a superuser."""
    return User.objects.create_superuser("ann", first_name="Ann")


#: Status codes of a form or filter that is shown again with its errors.
INVALID = ("status of 400 ", "status of 422 ")


def _complains(said: ConsoleMessage) -> bool:
    """Return whether a message is an error; the status of an invalid form is none."""
    return said.type == "error" and not any(one in said.text for one in INVALID)


@pytest.fixture
def page(browser: Browser, server: str, user: User) -> Iterator[Page]:
    """Open a page as that user; any error in the browser fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    client = Client()
    client.force_login(user)
    cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies(
        [{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": server}]
    )
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    trouble: list[str] = []
    opened.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    opened.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
    opened.on(
        "console",
        lambda said: trouble.append(said.text) if _complains(said) else None,
    )
    yield opened
    context.close()
    assert not trouble, "\n".join(trouble)


@pytest.fixture
def visit(page: Page, server: str) -> Callable[..., Page]:
    """Go to a page of the admin by the name of its address."""

    def go(name: str, *args: Any, query: str = "") -> Page:
        page.goto(server + reverse(f"admin:{name}", args=args) + query)
        return page

    return go
