"""Functions are found in the ``durable.py`` of every installed app."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HOST = """
import sys
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["durable_jobs", "bakery.apps.Bakery", "quiet"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from durable_jobs.definitions.registry import registry
for function in registry:
    print(function.id)
"""
FILES = {
    "bakery/__init__.py": "",
    "bakery/apps.py": """
        from django.apps import AppConfig

        class Bakery(AppConfig):
            name = "bakery"
            label = "bread"
        """,
    "bakery/models.py": """
        from django.db import models

        class Loaf(models.Model):
            weight = models.IntegerField()
        """,
    "bakery/durable.py": """
        from bakery.models import Loaf
        from durable_jobs import durable

        @durable.function(
            on=durable.ModelChange("bread.Loaf", updated=True, fields=["weight"])
        )
        def bake(ctx):
            pass
        """,
    "quiet/__init__.py": "",
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Write a project with an app that has functions and one that has none."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (tmp_path / "host.py").write_text(HOST)
    return tmp_path


def started(host: Path) -> subprocess.CompletedProcess[str]:
    """Start the project in a fresh Python."""
    return subprocess.run(
        [sys.executable, "host.py"],
        cwd=host,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_apps_are_all_searched(host: Path) -> None:
    done = started(host)
    # The id begins with the app's label, which is not its package's name here.
    assert done.stdout.split() == ["bread.bake"], done.stderr


def test_package_called_durable_is_found_too(host: Path) -> None:
    source = (host / "bakery/durable.py").read_text()
    (host / "bakery/durable.py").unlink()
    (host / "bakery/durable").mkdir()
    (host / "bakery/durable/__init__.py").write_text("from . import bread")
    (host / "bakery/durable/bread.py").write_text(source)
    assert started(host).stdout.split() == ["bread.bake"]


def test_models_may_declare_functions_themselves(host: Path) -> None:
    path = host / "bakery/models.py"
    (host / "bakery/durable.py").unlink()
    path.write_text(
        path.read_text()
        + textwrap.dedent(
            """
            from django.apps import apps
            from durable_jobs import durable

            assert not apps.models_ready

            @durable.function(on=durable.ModelChange("bread.Loaf", created=True))
            def weigh(ctx):
                pass
            """
        )
    )
    done = started(host)
    assert done.stdout.split() == ["bread.weigh"], done.stderr


@pytest.mark.parametrize(
    ("wrong", "right", "expected"),
    [
        ('"bread.Lof"', '"bread.Loaf"', "there is no such model"),
        ('["wieght"]', '["weight"]', "expected fields among id, weight, got 'wieght'"),
    ],
)
def test_trigger_on_a_missing_model_stops_the_project(
    host: Path, wrong: str, right: str, expected: str
) -> None:
    path = host / "bakery/durable.py"
    path.write_text(path.read_text().replace(right, wrong))
    done = started(host)
    assert done.returncode
    assert "ConfigurationError" in done.stderr
    assert "'bread.bake'" in done.stderr
    assert expected in done.stderr


def test_broken_module_stops_the_project(host: Path) -> None:
    (host / "bakery/durable.py").write_text("import nothing_like_this")
    done = started(host)
    assert done.returncode
    assert "nothing_like_this" in done.stderr


def test_app_whose_module_fails_is_named_at_error_and_ends_the_process(
    host: Path,
) -> None:
    (host / "quiet/durable.py").write_text("import no_such_module")
    done = started(host)
    assert done.returncode == 1
    line = "The durable functions of app 'quiet' could not be imported"
    assert line in done.stderr
    assert "ModuleNotFoundError" in done.stderr
