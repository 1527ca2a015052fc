"""``durable_doctor`` without tables or database, and commands without a driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from durable_jobs.maintenance import doctor
from durable_jobs.models import Pause
from tests.lab.processes import lab

ROOT = Path(__file__).parents[2]


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("address", "check", "says"),
    [
        ("sqlite:///{}/empty.sqlite3", "tables", "run manage.py migrate"),
        ("postgres://nobody@127.0.0.1:9/none", "database", "cannot be used"),
    ],
)
@pytest.mark.parametrize("options", [["--format", "json"], [], ["--fix"]])
def test_doctor_without_tables_prints_one_line_and_exits_with_2(
    tmp_path: Path, address: str, check: str, says: str, options: list[str]
) -> None:
    url = address.format(tmp_path)
    done = manage("durable_doctor", *options, DATABASE_URL=url)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stdout.splitlines()
    if "json" in options:
        report = json.loads(line)
        assert report["healthy"] is False
        assert [one["check"] for one in report["findings"]] == [check]
    assert says in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["durable_runs"],
        ["durable_keys", "list"],
        ["durable_prune"],
        ["durable_send", "a/b"],
    ],
    ids=" ".join,
)
def test_commands_without_tables_print_one_line_and_exit_with_2(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = manage(*arguments, DATABASE_URL=f"sqlite:///{tmp_path}/empty.sqlite3")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "run manage.py migrate" in done.stderr.strip().splitlines()[-1]


def test_psycopg_without_its_library_is_explained() -> None:
    address = "postgres://nobody@127.0.0.1:9/none"
    done = manage("check", DATABASE_URL=address, PSYCOPG_IMPL="missing")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "psycopg cannot be imported" in last
    assert "install psycopg[binary], or libpq" in last


@pytest.mark.parametrize("began", [False, True])
def test_doctor_counts_as_ready_what_claims_would_take(
    durable_kit, napper, began: bool
) -> None:
    run = napper.enqueue()
    if began:
        durable_kit.run_until_idle()
        durable_kit.advance("1h", run=False)
        type(run).objects.update(status="queued", due_at=durable_kit.now())
    durable_kit.advance("10m", run=False)
    figures = doctor.examine().figures
    assert figures["oldest_ready_seconds"] == 600
    pause = Pause.objects.create(
        kind="function", name="t.napper", paused_at=durable_kit.now()
    )
    # A pause of a function lets live runs continue.
    ready = doctor.examine().figures["oldest_ready_seconds"]
    assert ready == (600 if began else None)
    pause.delete()
    Pause.objects.create(kind="queue", name="default", paused_at=durable_kit.now())
    assert doctor.examine().figures["oldest_ready_seconds"] is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("skip", ["1", ""])
def test_worker_refuses_wrong_settings_with_and_without_checks(
    process_environment: dict[str, str], skip: str
) -> None:
    with lab(process_environment) as made:
        worker = made.start(
            ["worker", "-P", "solo", "-l", "INFO"],
            {"CELERY_SKIP_CHECKS": skip, "LAB_WRONG_SETTING": "1"},
        )
        assert worker.ended() == 1
        assert "durable_jobs.E001" in worker.text()
        assert "MAX_STEPZ" in worker.text()
