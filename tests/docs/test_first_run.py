"""Follow the tutorial "A first run", block by block, in its own environment."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest

from tests.docs.pages import Block, page
from tests.packaging.installed import Installed

INSTALLATION = """\
python3 -m venv venv
. venv/bin/activate
pip install ./durable-jobs
"""
SERVER = "python manage.py durable_dev"
PATIENCE = 60.0
PAGES = re.compile(r"<http://127\.0\.0\.1:8000(/[^>]*)>")


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"Timed out while waiting for {what}"
        time.sleep(0.05)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Reader:
    """A reader who follows the page, in one terminal and one browser."""

    def __init__(self, installed: Installed, place: Path) -> None:
        self.installed = installed
        self.place = place
        self.port = free_port()
        self.browser: OpenerDirector = build_opener(HTTPCookieProcessor(CookieJar()))
        self.terminal = place / "terminal.txt"
        self.terminal.touch()
        self.server: subprocess.Popen[bytes] | None = None

    def type(self, block: Block) -> None:
        """Type a block of commands."""
        if block.text.strip() == SERVER:
            self.serve()
            return
        script = f"set -eu\n{block.text}\npwd"
        printed = self.installed.run("bash", "-c", script, cwd=self.place)
        self.place = Path(printed.splitlines()[-1])

    def write(self, block: Block) -> None:
        """Write a file; append to the settings."""
        mode = "a" if block.file.endswith("settings.py") else "w"
        with (self.place / block.file).open(mode) as file:
            file.write(block.text)

    def serve(self) -> None:
        """Start the server and wait until it responds."""
        begun = len(self.seen())
        with self.terminal.open("a") as terminal:
            self.server = subprocess.Popen(
                [*SERVER.split(), str(self.port)],
                cwd=self.place,
                env={**self.installed.environment, "PYTHONUNBUFFERED": "1"},
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
        until(lambda: "Quit with Ctrl-C" in self.seen()[begun:], "the server")

    def seen(self) -> str:
        """Return the terminal's output."""
        return self.terminal.read_text()

    def open(self, path: str, data: dict[str, str] | None = None) -> str:
        """Open a page in the browser."""
        form = None if data is None else urlencode(data).encode()
        address = f"http://127.0.0.1:{self.port}{path}"
        with self.browser.open(address, form, timeout=PATIENCE) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

    def log_in(self, path: str) -> str:
        """Open a page of the admin, and log in if it asks."""
        asked = self.open(path)
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', asked)
        assert token is not None
        return self.open(
            f"/admin/login/?next={path}",
            {
                "csrfmiddlewaretoken": token[1],
                "username": "admin",
                "password": "secret",
                "next": path,
            },
        )

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        assert self.server is not None
        os.killpg(self.server.pid, signal.SIGINT)
        self.server.wait(PATIENCE)

    def leave(self) -> None:
        """End remaining processes."""
        if self.server is not None and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait(PATIENCE)


def story(lines: str) -> list[str]:
    """Return the lines about runs, without their times and ids."""
    found = re.findall(r"^[\d:]{8} (\S+) \S+ (\w+)$|^(Hello, .*)$", lines, re.MULTILINE)
    return [hello or f"{function} {status}" for function, status, hello in found]


@pytest.mark.timeout(300)
def test_tutorial_works(installed: Installed, tmp_path: Path) -> None:
    tutorial = page("docs/tutorial/first-run.md")
    installation, *blocks = tutorial.blocks
    # One installation serves all tests, with the wheel and its own pip.
    assert installation.text == INSTALLATION
    greet_ada, runs, greet_grace = PAGES.findall(tutorial.prose)
    reader = Reader(installed, tmp_path)
    try:
        *preparation, shown, restart = blocks
        for block in preparation:
            {"sh": reader.type, "python": reader.write}[block.language](block)
        assert shown.language == "text"

        reader.open(greet_ada)
        until(lambda: "greet" in reader.seen() and "completed" in reader.seen(), "Ada")
        assert story(reader.seen()) == story(shown.text)
        listing = reader.log_in(runs)
        assert "hello.greet" in listing
        run = re.search(rf'href="({runs}[0-9a-f-]+/change/)"', listing)
        assert run is not None, listing
        assert "compose" in reader.open(run[1])

        reader.open(greet_grace)
        until(lambda: story(reader.seen())[-1].endswith("waiting"), "the sleep")
        reader.interrupt()
        before = len(reader.seen())
        reader.type(restart)
        until(lambda: "completed" in reader.seen()[before:], "Grace")
        assert "Hello, Grace!" in reader.seen()[before:]
        reader.interrupt()
        assert reader.server is not None
        assert reader.server.returncode == 0
        listed = installed.manage(reader.place, "durable_runs", "--status", "completed")
        assert listed.count("hello.greet") == 2
    finally:
        reader.leave()
