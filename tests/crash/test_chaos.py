"""A short chaos test; ``python -m tests.crash.chaos`` runs it for any length."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.crash.chaos import KINDS
from tests.lab.processes import ROOT

SECONDS = float(os.environ.get("LAB_CHAOS_SECONDS", "20"))


@pytest.mark.timeout(int(SECONDS) + 360)
def test_all_runs_end_correctly_under_random_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.chaos", "--seconds", str(SECONDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seed, said = done.stdout.splitlines()[:2]
    fired = json.loads(said)
    for kind in KINDS:
        assert fired[kind.__name__] > 0, f"{kind.__name__} has had no effect: {seed}"
    assert fired["runs"] > 30
