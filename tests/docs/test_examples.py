"""Every example of the documentation does what the text around it says."""

from __future__ import annotations

import inspect
import logging
import logging.config
import os
import subprocess
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

import project.settings
import project.shop.models
from durable_jobs import conf, durable
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Event, Run, Step
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.docs.pages import ROOT, Block, Section, sections

pytestmark = pytest.mark.django_db

FIRST_RUN = "docs/tutorial/first-run.md"  # test_first_run.py follows it

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


def an_order(**values: Any) -> Order:
    """Save an order, as the examples take it to be there."""
    tenant, _ = Tenant.objects.get_or_create(name="Acme")
    return Order.objects.create(**{"tenant": tenant, "total": 40, **values})


def forget_the_demos_functions() -> None:
    """Leave the ids and the events to the examples; the kit's end brings them back."""
    for one in registry:  # the app's own stay
        del registry._functions[one.id]
    registry._index()


class Story:
    """One section's examples, and the modules that they are in."""

    def __init__(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kit = kit
        self._patch = monkeypatch
        self.module = types.ModuleType("shop.durable")
        self.module.__dict__.update(
            durable=durable,
            kit=kit,
            pytest=pytest,
            an_order=an_order,
            Event=Event,
            Order=Order,
            Run=Run,
            Step=Step,
        )
        shop = types.ModuleType("shop")
        shop.__path__ = []
        shop.__dict__.update(durable=self.module, models=project.shop.models)
        monkeypatch.setitem(sys.modules, "shop", shop)
        monkeypatch.setitem(sys.modules, "shop.models", project.shop.models)
        monkeypatch.setitem(sys.modules, "shop.durable", self.module)

    def tell(self, section: Section) -> None:
        """Execute the examples."""
        for block in section.examples:
            name = block.file.rpartition("/")[2]
            special = {
                "celery.py": self._celery,
                "settings.py": self._settings,
                "tests.py": self._tests,
                "urls.py": self._urls,
            }
            special.get(name, self._plain)(section, block)

    def _plain(self, section: Section, block: Block) -> None:
        self._execute(section, block, self.module.__dict__)

    def _execute(
        self, section: Section, block: Block, names: dict[str, Any]
    ) -> dict[str, Any]:
        # The lines before it keep the numbers in tracebacks those of the page.
        code = "\n" * (block.line - 1) + block.text
        path = str(ROOT / str(section.page))
        exec(compile(code, path, "exec"), names)  # noqa: S102  # our own documentation
        return names

    def _settings(self, section: Section, block: Block) -> None:
        names = self._execute(section, block, dict(vars(project.settings)))
        with override_settings(DURABLE_JOBS=names.get("DURABLE_JOBS", {})):
            assert conf.problems() == []
        if names["LOGGING"] is not project.settings.LOGGING:
            self._logging(names["LOGGING"])

    def _logging(self, wanted: dict[str, Any]) -> None:
        """Give loggers what a page wants of them, for its section."""
        made = logging.config.DictConfigurator(wanted)
        for kind in ("formatters", "filters"):
            own = made.config.setdefault(kind, {})
            for name in own:
                own[name] = getattr(made, f"configure_{kind[:-1]}")(own[name])
        for name, options in wanted["loggers"].items():
            logger = logging.getLogger(name)
            handlers = [
                made.configure_handler(dict(wanted["handlers"][one]))
                for one in options["handlers"]
            ]
            self._patch.setattr(logger, "handlers", handlers)
            self._patch.setattr(logger, "level", logging.NOTSET)
            logger.setLevel(options["level"])

    def _urls(self, section: Section, block: Block) -> None:
        names = self._execute(section, block, {"__name__": "mysite.urls"})
        assert names["urlpatterns"]

    def _celery(self, section: Section, block: Block) -> None:
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings"}
        subprocess.run(
            [sys.executable, "-c", A_SITE + block.text + ITS_CELERY_APP],
            cwd=ROOT,
            env=environment,
            check=True,
        )

    def _tests(self, section: Section, block: Block) -> None:
        names = self._execute(section, block, {"__name__": "shop.tests"})
        found = 0
        for name, value in names.items():
            if inspect.isclass(value) and issubclass(value, unittest.TestCase):
                found += self._case(value)
            elif name.startswith("test"):
                found += self._call(value)
        assert found, "the file has no test"

    def _case(self, case: type[unittest.TestCase]) -> int:
        # One by one: the end of a whole class would close our own connection.
        names = unittest.defaultTestLoader.getTestCaseNames(case)
        for name in names:
            case(name).debug()
        return len(names)

    def _call(self, test: Callable[..., None]) -> int:
        known = {"durable_kit": self.kit, "db": None}
        wanted = inspect.signature(test).parameters
        test(**{name: known[name] for name in wanted if name in known})
        return 1


@pytest.mark.parametrize(
    "section",
    [s for s in sections() if str(s.page) != FIRST_RUN],
    ids=lambda section: str(section),
)
def test_the_examples_of_a_section_work(
    section: Section, durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_the_demos_functions()
    Story(durable_kit, monkeypatch).tell(section)
    durable_kit.run_until_idle()
    begun = Run.objects.exclude(started_at=None).values_list("function", flat=True)
    shown = {function.id for function in registry}
    assert shown <= set(begun), "an example declares a function that nothing starts"
