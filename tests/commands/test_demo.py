"""The demo: a real file, a real kill, and every row once."""

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
def rooms(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which temporary files are this test's own."""
    return {"TMPDIR": str(tmp_path)}


def test_the_demo_kills_its_worker_and_ends_well(
    tmp_path: Path, rooms: dict[str, str]
) -> None:
    with command(
        ROOT, "durable_demo", "--exit", "--port", "0", environment=rooms
    ) as demo:
        demo.until("it started shop.import_airports")
        killed = demo.until("kill -9")
        assert "died of signal 9" in killed
        pid = int(killed.split("kill -9 ")[1].split(":")[0])
        assert not Path(f"/proc/{pid}").exists()
        demo.until("still 'running'")
        demo.until("goes on after the")
        demo.until("of shop.import_airports: completed")
        demo.until("write 28000 (atomic)")
        demo.until("of shop.summarise_import: completed")
        assert f"{len(airportsdata.load())} rows" in demo.until("Check passed")
        assert demo.end() == 0
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_the_demo_serves_its_page_until_it_is_told_to_end(
    tmp_path: Path, rooms: dict[str, str]
) -> None:
    with command(ROOT, "durable_demo", "--port", "0", environment=rooms) as demo:
        page = demo.until("The run: http").partition("run: ")[2].split()[0]
        demo.until("Serving until Ctrl-C")
        answer = urllib.request.urlopen(page)  # noqa: S310  # the demo's own page
        assert answer.status == 200
        assert "login" in answer.url
        os.kill(demo.process.pid, signal.SIGTERM)
        assert demo.end() == 0
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"
