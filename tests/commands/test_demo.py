"""The demo imports a real file, kills its worker and stores every row once."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

import airportsdata
import pytest

from tests.commands.processes import ROOT, command

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return environment variables that put temporary files in ``tmp_path``."""
    return {"TMPDIR": str(tmp_path)}


def test_demo_kills_its_worker_and_finishes_the_import(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with command(
        ROOT, "durable_demo", "--exit", "--port", "0", environment=environment
    ) as demo:
        demo.until("started shop.import_airports")
        killed = demo.until("kill -9")
        assert "signal 9 ended the worker" in killed
        pid = int(killed.split("kill -9 ")[1].split(":")[0])
        assert not Path(f"/proc/{pid}").exists()
        demo.until("still 'running'")
        demo.until("continues after the")
        demo.until("of shop.import_airports: completed")
        demo.until("write 28000 (atomic)")
        demo.until("of shop.summarise_import: completed")
        assert f"{len(airportsdata.load())} rows" in demo.until("Check passed")
        assert demo.end() == 0
    assert not list(tmp_path.iterdir()), "the demo left files"


def test_demo_serves_its_page_until_sigterm(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with command(ROOT, "durable_demo", "--port", "0", environment=environment) as demo:
        page = demo.until("See the run at http").partition("run at ")[2].split()[0]
        demo.until("Serving until Ctrl-C")
        response = urllib.request.urlopen(page)  # noqa: S310  # the demo's own page
        assert response.status == 200
        assert "login" in response.url
        os.kill(demo.process.pid, signal.SIGTERM)
        assert demo.end() == 0
    assert not list(tmp_path.iterdir()), "the demo left files"
