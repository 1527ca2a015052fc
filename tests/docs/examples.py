"""Run the examples of a section, and let a test say what they must do.

A test of a page is in the module that is named after the page: ``docs/how-to/crons.md``
is tested by ``tests/docs/how_to/test_crons.py``. It names its section by the heading:

    @section("Catch up after an outage")
    def test_catch_up_all_starts_a_run_for_each_time(run_example, shop, kit):
        run_example()
        kit.advance("5h")
        assert Run.objects.count() == 5

``run_example`` runs the section's next example. ``shop`` is the module in which the
examples run, so ``shop.count_hours`` is the function that the example declares.
"""

from __future__ import annotations

import inspect
import logging
import logging.config
import os
import re
import subprocess
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from django.test import override_settings

import project.settings
import project.shop.models
from durable_jobs import conf, durable
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Event, Run, Step
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.docs.pages import DOCS, ROOT, Block, Page, Section

TESTS = Path(__file__).resolve().parent

Test = TypeVar("Test", bound=Callable[..., None])

A_SITE = """
import sys
import types
site = types.ModuleType("mysite")
site.settings = types.ModuleType("mysite.settings")
site.settings.INSTALLED_APPS = ["django.contrib.contenttypes", "durable_jobs"]
sys.modules.update({"mysite": site, "mysite.settings": site.settings})
"""
ITS_CELERY_APP = """
import django
django.setup()
app.finalize()
assert "durable_jobs.tick" in app.conf.beat_schedule, app.conf.beat_schedule
assert "durable_jobs.work" in app.tasks, sorted(app.tasks)
"""


def section(title: str) -> Callable[[Test], Test]:
    """Name the section whose examples a test runs."""

    def named(test: Test) -> Test:
        test.__dict__["section"] = title
        return test

    return named


def page_of(path: Path) -> Page:
    """Return the page that a module tests."""
    name = path.with_name(f"{path.stem.removeprefix('test_')}.md")
    if name == TESTS / "readme.md":
        return Page(ROOT / "README.md")
    return Page(DOCS / str(name.relative_to(TESTS)).replace("_", "-"))


def sections_with_tests() -> Iterator[tuple[Page, str]]:
    """Yield the pages and headings that tests name."""
    for path in sorted(TESTS.rglob("test_*.py")):
        found = re.findall(r'^@section\("(.+)"\)$', path.read_text(), re.MULTILINE)
        yield from ((page_of(path), title) for title in found)


def an_order(**values: Any) -> Order:
    """Save an order, as the examples expect one."""
    tenant, _ = Tenant.objects.get_or_create(name="Acme")
    return Order.objects.create(**{"tenant": tenant, "total": 40, **values})


def _forget_functions_of_the_demo() -> None:
    """Free the ids and events for the examples; the end of the kit restores them."""
    for function in registry:  # leaves the functions of durable_jobs
        del registry._functions[function.id]
    registry._index()


class Story:
    """The examples of one section, and the modules in which they run."""

    def __init__(
        self, section: Section, kit: Kit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.section = section
        self.kit = kit
        self._patch = monkeypatch
        self._left = list(section.examples)
        self.module = types.ModuleType("shop.durable")
        self.module.__dict__.update(
            durable=durable, Event=Event, Order=Order, Run=Run, Step=Step
        )
        shop = types.ModuleType("shop")
        shop.__path__ = []
        shop.__dict__.update(durable=self.module, models=project.shop.models)
        monkeypatch.setitem(sys.modules, "shop", shop)
        monkeypatch.setitem(sys.modules, "shop.models", project.shop.models)
        monkeypatch.setitem(sys.modules, "shop.durable", self.module)
        _forget_functions_of_the_demo()

    def run_example(self) -> None:
        """Run the next example."""
        assert self._left, f"{self.section} has no more examples"
        block = self._left.pop(0)
        name = block.file.rpartition("/")[2]
        special = {
            "celery.py": self._celery,
            "settings.py": self._settings,
            "tests.py": self._tests,
            "urls.py": self._urls,
        }
        special.get(name, self._plain)(block)

    def run_all(self) -> None:
        """Run all examples that are left."""
        while self._left:
            self.run_example()

    def finish(self) -> None:
        """Check that every example ran, and every function that they declare."""
        assert not self._left, (
            f"{len(self._left)} examples of {self.section} did not run"
        )
        self.kit.run_until_idle()
        begun = Run.objects.exclude(started_at=None).values_list("function", flat=True)
        shown = {function.id for function in registry}
        assert shown <= set(begun), "an example declares a function that nothing starts"

    def _plain(self, block: Block) -> None:
        self._execute(block, self.module.__dict__)

    def _execute(self, block: Block, names: dict[str, Any]) -> dict[str, Any]:
        # The empty lines give tracebacks the line numbers of the page.
        code = "\n" * (block.line - 1) + block.text
        path = str(ROOT / str(self.section.page))
        exec(compile(code, path, "exec"), names)  # noqa: S102  # our own documentation
        return names

    def _settings(self, block: Block) -> None:
        names = self._execute(block, dict(vars(project.settings)))
        with override_settings(DURABLE_JOBS=names.get("DURABLE_JOBS", {})):
            assert conf.problems() == []
        if names["LOGGING"] is not project.settings.LOGGING:
            self._logging(names["LOGGING"])

    def _logging(self, wanted: dict[str, Any]) -> None:
        """Configure the loggers as the page shows, until the section ends."""
        made = logging.config.DictConfigurator(wanted)
        for kind in ("formatters", "filters"):
            own = made.config.setdefault(kind, {})
            for name in own:
                own[name] = getattr(made, f"configure_{kind[:-1]}")(own[name])
        for name, options in wanted["loggers"].items():
            logger = logging.getLogger(name)
            handlers = [
                made.configure_handler(dict(wanted["handlers"][handler]))
                for handler in options["handlers"]
            ]
            self._patch.setattr(logger, "handlers", handlers)
            self._patch.setattr(logger, "level", logging.NOTSET)
            logger.setLevel(options["level"])

    def _urls(self, block: Block) -> None:
        names = self._execute(block, {"__name__": "mysite.urls"})
        assert names["urlpatterns"]

    def _celery(self, block: Block) -> None:
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings"}
        subprocess.run(
            [sys.executable, "-c", A_SITE + block.text + ITS_CELERY_APP],
            cwd=ROOT,
            env=environment,
            check=True,
        )

    def _tests(self, block: Block) -> None:
        names = self._execute(block, {"__name__": "shop.tests"})
        found = 0
        for name, value in names.items():
            if inspect.isclass(value) and issubclass(value, unittest.TestCase):
                found += self._case(value)
            elif name.startswith("test"):
                found += self._call(value)
        assert found, "the file has no test"

    def _case(self, case: type[unittest.TestCase]) -> int:
        # One by one: the end of a whole class would close the test's connection.
        names = unittest.defaultTestLoader.getTestCaseNames(case)
        for name in names:
            case(name).debug()
        return len(names)

    def _call(self, test: Callable[..., None]) -> int:
        known = {"durable_kit": self.kit, "db": None}
        wanted = inspect.signature(test).parameters
        test(**{name: known[name] for name in wanted if name in known})
        return 1
