"""The wheel, in an empty environment and a new project, is all that a user needs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.packaging.installed import ROOT, Installed

pytestmark = pytest.mark.timeout(300)

PACKAGE = ROOT / "durable_jobs"
DURABLE = """
from durable_jobs import durable


@durable.function
def greet(ctx: durable.Context) -> str:
    return ctx.step.run("write", lambda: f"Hello, {ctx.event.data['name']}!")
"""


@pytest.fixture(scope="module")
def site(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new project with the settings of the tutorial."""
    place = tmp_path_factory.mktemp("site")
    app = place / "mysite" / "hello"
    site = installed.project(place)
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "durable.py").write_text(DURABLE)
    with (site / "mysite" / "settings.py").open("a") as settings:
        settings.write('INSTALLED_APPS += ["hello"]\n')
    return site


def files(folder: Path) -> list[Path]:
    """Return the files below a folder that are not Python's own caches."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def test_wheel_contains_the_package_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert names == {str(path.relative_to(ROOT)) for path in files(PACKAGE)}
    assert "durable_jobs/py.typed" in names


def test_requirements_are_installed_with_the_wheel(installed: Installed) -> None:
    installed.run("pip", "check", cwd=installed.path)
    listing = installed.run("pip", "list", "--format", "json", cwd=installed.path)
    names = {item["name"].lower() for item in json.loads(listing)}
    assert {"durable-jobs", "django", "celery"} <= names
    assert not names & {"cel-expr-python", "pytest", "airportsdata"}


def test_public_api_can_be_imported_without_a_project(installed: Installed) -> None:
    code = """
from durable_jobs import durable
for name in durable.__all__:
    getattr(durable, name)
print(durable.function(id="shop.pay")(lambda ctx: None).id)
"""
    printed = installed.run("python", "-W", "error", "-c", code, cwd=installed.path)
    assert printed.strip() == "shop.pay"


def test_cel_condition_without_the_extra_says_what_to_install(
    installed: Installed,
) -> None:
    code = """
from durable_jobs import durable
trigger = durable.Event("shop/paid", if_="event.data.total > 0")
try:
    durable.function(id="shop.pay", on=trigger)(lambda ctx: None)
except durable.ConfigurationError as error:
    print(error)
plain = durable.Event("shop/paid", if_=lambda event: event.data["total"] > 0)
durable.function(id="shop.pay", on=plain)(lambda ctx: None)
"""
    printed = installed.run("python", "-c", code, cwd=installed.path)
    assert 'pip install "durable-jobs[cel]"' in printed


def test_fresh_project_is_in_order(installed: Installed, site: Path) -> None:
    checked = installed.manage(site, "check", "--fail-level", "WARNING")
    assert "no issues" in checked
    made = installed.manage(site, "makemigrations", "--check", "--dry-run")
    assert "No changes detected" in made


def test_library_of_postgresql_is_not_needed_on_sqlite(
    installed: Installed, site: Path
) -> None:
    # psycopg cannot be imported without its binaries and libpq. A missing
    # implementation has the same effect.
    command = ("python", "manage.py", "durable_runs")
    assert "No runs." in installed.run(*command, cwd=site, PSYCOPG_IMPL="c")


def test_commands_are_in_the_wheel(installed: Installed, site: Path) -> None:
    names = {path.stem for path in (PACKAGE / "management/commands").glob("[!_]*.py")}
    assert names
    assert names <= set(installed.manage(site, "help", "--commands").split())
    for name in sorted(names):
        assert name in installed.manage(site, name, "--help")


def test_templates_are_in_the_wheel(installed: Installed, site: Path) -> None:
    folder = PACKAGE / "templates"
    names = [str(path.relative_to(folder)) for path in files(folder)]
    assert names
    code = f"""
from django.template.loader import get_template
for name in {names!r}:
    get_template(name)
"""
    installed.manage(site, "shell", "--command", code)


def test_static_files_are_collected(installed: Installed, site: Path) -> None:
    installed.manage(site, "collectstatic", "--no-input", "--verbosity", "0")
    folder = PACKAGE / "static"
    names = [path.relative_to(folder) for path in files(folder)]
    assert names
    for name in names:
        collected = (site / "collected" / name).read_bytes()
        assert collected == (folder / name).read_bytes()


def test_test_kit_is_announced_to_pytest(installed: Installed) -> None:
    code = """
from importlib.metadata import entry_points
for point in entry_points(group="pytest11"):
    print(point.value)
"""
    printed = installed.run("python", "-c", code, cwd=installed.path)
    assert printed.split() == ["durable_jobs.testing.plugin"]


def test_run_is_started_executed_and_shown(installed: Installed, site: Path) -> None:
    code = """
from durable_jobs.testing import Kit
from hello.durable import greet
with Kit() as kit:
    run = greet.enqueue({"name": "Ada"}).wait()
    print(run.result())
"""
    printed = installed.manage(site, "shell", "--command", code)
    assert "Hello, Ada!" in printed
    (listed,) = json.loads(installed.manage(site, "durable_runs", "--format", "json"))
    assert (listed["function"], listed["status"]) == ("hello.greet", "completed")
    shown = installed.manage(site, "durable_runs", "show", listed["id"])
    assert "write (run)" in shown
