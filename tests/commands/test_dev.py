"""``durable_dev``: a project of a few lines, on SQLite, without a broker."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.commands.processes import command, manage

pytestmark = pytest.mark.timeout(180)

FUNCTION = """
from durable_jobs import durable


@durable.function(on=durable.Event("hello/world"))
def greet(ctx):
    name = ctx.step.run("name", lambda: ctx.event.data["name"])
    ctx.step.sleep("breathe", "500ms")
    return ctx.step.run("greet", lambda: f"Hello, {name}!", queue="named nowhere else")
"""
SETTINGS = """
INSTALLED_APPS += ["durable_jobs", "hello"]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a project with ``startproject`` and a first function, without Celery."""
    place = tmp_path_factory.mktemp("project")
    call_command("startproject", "mysite", str(place))
    (place / "hello").mkdir()
    (place / "hello" / "__init__.py").touch()
    (place / "hello" / "durable.py").write_text(FUNCTION)
    with (place / "mysite" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    manage(place, "migrate", "-v0")
    return place


def test_web_worker_and_beat_serve_a_project_without_a_broker(project: Path) -> None:
    with command(project, "durable_dev", "0", "--noreload") as dev:
        greeting = dev.until("Web at")
        assert "(broker memory://localhost" in greeting
        assert "**" not in greeting
        found = re.search(r"http://[^,]*", greeting)
        assert found is not None
        answer = urllib.request.urlopen(found[0])  # noqa: S310  # of this very command
        assert answer.status == 200
        assert f"{found[0].split(' ')[0]}admin/" in dev.until("Admin at")
        assert "hello.greet" in dev.until("Functions")

        sent = manage(
            project, "durable_send", "hello/world", "--data", '{"name": "Ada"}'
        )
        run_id = sent.split()[-1]
        dev.until(f"hello.greet {run_id} waiting")
        dev.until(f"hello.greet {run_id} completed")

        assert "Hello, Ada!" in manage(
            project, "durable_runs", "show", run_id, "--format", "json"
        )
        said = manage(project, "durable_doctor")
        assert "All is well." in said
        assert "living workers   1" in said
        assert dev.interrupt() == 0


def test_dev_restarts_when_the_code_changes_and_survives_broken_code(
    project: Path,
) -> None:
    code = project / "hello" / "durable.py"
    with command(project, "durable_dev", "0") as dev:
        dev.until("hello.greet")
        dev.until("Quit with Ctrl-C")

        code.write_text(FUNCTION.replace("def greet", "def welcome"))
        dev.until("hello.welcome")
        dev.until("Quit with Ctrl-C")

        code.write_text("def broken(:")
        dev.until("SyntaxError")
        dev.until("Waiting for a change")
        code.write_text(FUNCTION)
        dev.until("hello.greet")
        dev.until("Quit with Ctrl-C")
        assert dev.interrupt() == 0


def test_dev_loads_an_app_that_is_added_while_it_serves(project: Path) -> None:
    settings = project / "mysite" / "settings.py"
    before = settings.read_text()
    with command(project, "durable_dev", "0") as dev:
        dev.until("Quit with Ctrl-C")
        (project / "added").mkdir()
        (project / "added" / "__init__.py").touch()
        added = project / "added" / "durable.py"

        added.write_text("def broken(:")
        settings.write_text(f"{before}\nINSTALLED_APPS += ['added']\n")
        dev.until("Waiting for a change")
        added.write_text(FUNCTION)
        assert "added.greet" in dev.until("Functions")
        dev.until("Quit with Ctrl-C")
        seen = len(dev.said)
        time.sleep(3)  # its files are newer than those that the parent knew

        settings.write_text("broken = (")
        dev.until("Waiting for a change")
        assert "durable.py changed" not in "".join(dev.said[seen:])
        settings.write_text(before)
        assert "added.greet" not in dev.until("Functions")
        dev.until("Quit with Ctrl-C")
        assert dev.interrupt() == 0


def test_port_that_is_taken_is_an_error(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command(project, "durable_dev", port, "--noreload") as dev:
            assert port in dev.until("Cannot serve at")
            assert dev.end() == 1


def test_invalid_address_is_an_error(project: Path) -> None:
    with command(project, "durable_dev", "nowhere", "--noreload") as dev:
        dev.until("Expected a port or address:port, got 'nowhere'")
        assert dev.end() == 1


def test_tick_may_be_a_separate_process(project: Path) -> None:
    with command(project, "durable_tick", "--forever") as tick:
        tick.until("Ticking")
        assert tick.interrupt() == 0
