"""A delivery over real HTTP, to a project of a few lines."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.commands.processes import command, manage

pytestmark = pytest.mark.timeout(180)

FUNCTION = """
from durable_jobs import durable


HOOK = durable.Webhook("github", durable.verify.GitHub(durable.verify.Setting("HOOK")))


@durable.function(on=HOOK)
def pushed(ctx):
    return ctx.step.run("ref", lambda: ctx.event.data["ref"])
"""
SETTINGS = """
INSTALLED_APPS += ["durable_jobs", "hello"]
HOOK = "hush"
"""
URLS = """
from django.urls import include
urlpatterns += [path("durable/", include("durable_jobs.urls"))]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a project with ``startproject`` and a webhook."""
    call_command("startproject", "mysite", str(tmp_path))
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "__init__.py").touch()
    (tmp_path / "hello" / "durable.py").write_text(FUNCTION)
    for name, more in (("settings.py", SETTINGS), ("urls.py", URLS)):
        with (tmp_path / "mysite" / name).open("a") as file:
            file.write(more)
    manage(tmp_path, "migrate", "-v0")
    return tmp_path


def deliver(address: str, secret: bytes) -> tuple[int, str]:
    """Post a push as GitHub does; return the status and the body."""
    body = b'{"ref": "main"}'
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-GitHub-Delivery": "7",
    }
    request = urllib.request.Request(address, body, headers)  # noqa: S310  # of our own server
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310  # as above
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_delivery_over_http_starts_one_run(project: Path) -> None:
    with command(project, "durable_dev", "0", "--noreload") as dev:
        found = re.search(r"http://[^,\s]*", dev.until("Web at"))
        assert found is not None
        address = f"{found[0].rstrip('/')}/durable/webhooks/github"
        dev.until("hello.pushed")
        assert deliver(address, b"hash")[0] == 401
        status, answer = deliver(address, b"hush")
        assert (status, json.loads(answer)) == (202, {"ids": ["webhook:github:7"]})
        dev.until("completed")
        assert deliver(address, b"hush") == (202, answer)
        assert manage(project, "durable_runs").count("hello.pushed") == 1
        assert dev.interrupt() == 0
