"""A virtual environment with only the built wheel and its requirements."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

#: Variables that would lead its processes back to this environment or its services.
OURS = ("COVERAGE", "DATABASE_URL", "BROKER_URL", "DJANGO_", "LAB_", "PYTHON")
SQLITE = """
DATABASES["default"]["OPTIONS"] = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL",
}
"""


@dataclass(frozen=True)
class Installed:
    """The environment; ``wheel`` is what was installed."""

    path: Path
    wheel: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of a shell in which it is activated."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(OURS)
        }
        return {
            **kept,
            "VIRTUAL_ENV": str(self.path),
            "PATH": f"{self.path / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}",
        }

    def run(self, *command: str, cwd: Path, **environment: str) -> str:
        """Run a command in the environment and return its output."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, f"{command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def manage(self, site: Path, *arguments: str) -> str:
        """Run a command of a project; a Python warning is an error."""
        return self.run("python", "-W", "error", "manage.py", *arguments, cwd=site)

    def project(self, place: Path, *apps: str) -> Path:
        """Create a project with the app in its settings, and migrate it."""
        self.run("django-admin", "startproject", "mysite", cwd=place)
        site = place / "mysite"
        with (site / "mysite" / "settings.py").open("a") as settings:
            settings.write(
                f"\nINSTALLED_APPS += {['durable_jobs', 'django_htmx', *apps]!r}\n"
            )
            settings.write('STATIC_ROOT = BASE_DIR / "collected"\n')
            settings.write(SQLITE)
        self.manage(site, "migrate", "--verbosity", "0")
        return site


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it, once for all processes that run the tests."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    base = tmp_path_factory.getbasetemp()
    place = base.parent / f"installed-{run}" if run else base / "installed"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = Installed(place / "venv", place / "durable-jobs.whl")
        if not found.wheel.exists():
            _install(found, place / "dist")
    return found


def _install(made: Installed, dist: Path) -> None:
    """Make the environment; its wheel is the last thing that is written."""
    here, place = Installed(Path(sys.prefix), Path()), dist.parent
    here.run(
        sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), ".", cwd=ROOT
    )
    (wheel,) = dist.glob("*.whl")
    here.run(sys.executable, "-m", "venv", str(made.path), cwd=place)
    constraints = str(ROOT / "requirements.lock")
    made.run("pip", "install", "--quiet", "-c", constraints, str(wheel), cwd=place)
    made.wheel.symlink_to(wheel)
