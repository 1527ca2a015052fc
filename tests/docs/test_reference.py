"""The reference describes everything public, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.dispatch import Signal
from pytest_django import DjangoCaptureOnCommitCallbacks

import durable_jobs
from durable_jobs import conf, durable, exceptions, failpoints, models, signals
from durable_jobs.admin import DurableRunsMixin
from durable_jobs.definitions import events as event_names
from durable_jobs.definitions.context import AsyncContext, Context
from durable_jobs.definitions.steps import COMING as COMING_STEPS
from durable_jobs.definitions.steps import Steps
from durable_jobs.engine.context import RunContext
from durable_jobs.maintenance.invariants import VIOLATIONS
from durable_jobs.models import Run
from durable_jobs.models.runs import RunQuerySet
from durable_jobs.models.schedules import ScheduleQuerySet
from durable_jobs.statuses import RunStatus, StepStatus
from durable_jobs.testing import Kit
from tests.docs.pages import Page, page

PACKAGE = Path(durable_jobs.__file__).parent
NAME = re.compile(r"`(\w[\w.]*)")
FAILPOINTS = page("docs/internals/failpoints.md")


def reference(name: str) -> Page:
    """Return a page of the reference."""
    return page(f"docs/reference/{name}.md")


def section(page: Page, title: str) -> str:
    """Return the text below a heading, up to the next one of its level."""
    lines = page.lines
    level, start = next(
        (len(line.partition(" ")[0]), number)
        for number, line in enumerate(lines)
        if line.startswith("#") and line.partition(" ")[2] == title
    )
    rest = lines[start + 1 :]
    ends = (
        number
        for number, line in enumerate(rest)
        if re.match(rf"#{{1,{level}}} ", line)
    )
    return "\n".join(rest[: next(ends, len(rest))])


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of the tables in a text, by the name in their first cell."""
    found = {}
    lines = text.splitlines()
    for above, line in itertools.pairwise(lines):
        if line.startswith("| `") and above.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            name = NAME.match(cells[0])
            assert name is not None, line
            assert name[1] not in found, f"{name[1]} has two rows"
            found[name[1]] = cells[1:]
    return found


def signature(function: Callable[..., Any], *, leaving: Iterable[str] = ()) -> str:
    """Return a function's parameters as the reference writes them."""
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in {"self", *leaving}:
            continue
        bare = parameter.replace(annotation=inspect.Parameter.empty)
        parts.append(str(bare))
    return f"({', '.join(parts)})"


def public(owner: Any) -> set[str]:
    """Return the names of a class's own public attributes."""
    return {
        name
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property))
    }


# The public API


def test_public_names_all_have_a_row() -> None:
    named = rows("\n".join(reference("names").lines))
    assert set(named) == set(durable.__all__)


def test_future_steps_are_all_named() -> None:
    steps = section(reference("steps"), "Not in this version")
    assert set(NAME.findall(steps)) - {"ConfigurationError"} == set(COMING_STEPS)


# Functions


def test_every_parameter_of_a_function_has_its_row_with_its_default() -> None:
    found = rows(section(reference("functions"), "Parameters"))
    parameters = dict(inspect.signature(durable.function).parameters)
    for internal in ("fn", "unknown"):
        del parameters[internal]
    assert list(found) == list(parameters)
    for name, parameter in parameters.items():
        assert found[name][0] == f"`{parameter.default!r}`", name


@pytest.mark.parametrize(
    "kind",
    [
        durable.Event,
        durable.Cron,
        durable.ModelChange,
        durable.Webhook,
        durable.CancelOn,
        durable.Timeouts,
        durable.Concurrency,
        durable.Throttle,
        durable.RateLimit,
        durable.Debounce,
        durable.Batch,
        durable.BatchFailures,
        durable.Singleton,
        durable.Subject,
    ],
)
def test_every_piece_of_a_declaration_shows_its_parameters(kind: type) -> None:
    shown = f"`durable.{kind.__name__}{signature(kind)}`"
    assert shown in section(reference("functions"), kind.__name__)


@pytest.mark.parametrize("name", ["exponential", "linear", "fixed"])
def test_every_backoff_shows_its_parameters(name: str) -> None:
    shown = f"`Backoff.{name}{signature(getattr(durable.Backoff, name))}`"
    assert shown in section(reference("functions"), f"Backoff.{name}")


def test_every_method_of_a_function_has_its_row() -> None:
    text = section(reference("functions"), "Methods of a function")
    methods = {
        name
        for name in public(durable.Function)
        if not isinstance(getattr(durable.Function, name), property)
    }
    assert set(rows(text)) == methods
    for name in methods:
        shown = signature(getattr(durable.Function, name)).replace("*, ", "")
        assert f"`{name}{shown}`" in text


def test_every_field_of_an_explanation_has_its_row() -> None:
    found = rows(section(reference("models"), "Explanation"))
    assert list(found) == [field.name for field in fields(durable.Explanation)]


def test_every_attribute_of_the_context_has_its_row() -> None:
    named = set(rows(section(reference("functions"), "The context")))
    for kind in (Context, AsyncContext):
        own = {name for base in kind.__mro__ for name in public(base)}
        assert named == own
    assert public(RunContext) <= named


# Steps


def test_every_step_has_its_heading_and_its_signature() -> None:
    found = {
        title: section(reference("steps"), title)
        for title in reference("steps").headings
        if hasattr(Steps, title)
    }
    assert set(found) == public(Steps)
    for name, text in found.items():
        shown = signature(getattr(Steps, name)).replace(", /", "")
        assert f"```\n{name}{shown}\n```" in text


# The admin


def test_every_name_of_the_mixin_has_its_row_with_its_default() -> None:
    found = rows(section(reference("admin"), "DurableRunsMixin"))
    own = {
        name: value
        for name, value in vars(DurableRunsMixin).items()
        if name.startswith("durable_")
    }
    assert own.keys() <= found.keys()
    for name, value in own.items():
        if not callable(value):
            assert found[name][0] == f"`{value!r}`", name


def test_every_template_tag_has_its_row() -> None:
    tags = importlib.import_module("durable_jobs.templatetags.durable_jobs")
    assert set(rows(section(reference("admin"), "Template tags"))) == set(
        tags.register.tags
    )


# Settings and checks


def test_every_setting_has_its_row_with_its_default() -> None:
    text = "\n".join(reference("settings").lines).partition("## Retention")[0]
    found = rows(text)
    known = {item.name: item.metadata["default"] for item in fields(conf.Settings)}
    assert list(found) == list(known)
    for name, default in known.items():
        assert found[name][0] == f"`{default!r}`", name


def test_every_retention_has_its_row_with_its_default() -> None:
    found = rows(section(reference("settings"), "Retention"))
    assert {name: cells[0].strip("`") for name, cells in found.items()} == (
        conf._RETENTION
    )


def test_every_system_check_has_its_row() -> None:
    ids = set()
    for path in PACKAGE.rglob("*.py"):
        ids |= set(re.findall(r'id="(durable_jobs\.[A-Z]\d+)"', path.read_text()))
    assert set(rows(section(reference("settings"), "System checks"))) == ids


# Errors


def test_tree_of_errors_is_that_of_the_code() -> None:
    every = [
        value
        for value in vars(exceptions).values()
        if inspect.isclass(value) and issubclass(value, exceptions.DurableError)
    ]

    def tree(kind: type, depth: int = 0) -> list[str]:
        below = [one for one in every if kind in one.__bases__]
        lines = ["  " * depth + kind.__name__]
        return lines + [line for one in below for line in tree(one, depth + 1)]

    shown = reference("errors").blocks[0].text.splitlines()
    assert shown == tree(exceptions.DurableError)
    for kind in every:
        assert f" {kind.__name__}" in f" {exceptions.__doc__}", "its module's own tree"


def test_every_error_has_its_row() -> None:
    bases = {"DurableError", "StepError", "RunError"}
    every = {line.strip() for line in reference("errors").blocks[0].text.splitlines()}
    assert set(rows("\n".join(reference("errors").lines))) == every - bases


# Events


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("An event to be sent", durable.NewEvent),
        ("An event as functions see it", durable.ReceivedEvent),
    ],
)
def test_every_field_of_an_event_has_its_row(title: str, kind: Any) -> None:
    found = rows(section(reference("events"), title))
    assert list(found) == [field.name for field in fields(kind)]


def test_every_event_of_the_package_has_its_row() -> None:
    known = {
        value
        for value in vars(event_names).values()
        if isinstance(value, str) and value.startswith("durable/")
    }
    text = section(reference("events"), "The events of this package")
    assert set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)) == known


# Models


@pytest.mark.parametrize("model", [models.Run, models.Step, models.Event])
def test_every_field_of_a_model_has_its_row(model: Any) -> None:
    found = rows(section(reference("models"), model.__name__))
    names = {field.name for field in model._meta.concrete_fields}
    methods = public(model) if model is Run else set()
    assert set(found) == names | methods


def test_every_field_and_action_of_a_schedule_has_its_row() -> None:
    text = section(reference("models"), "Schedule")
    names = {field.name for field in models.Schedule._meta.concrete_fields}
    assert set(rows(text)) == names | public(models.Schedule)
    for name in public(models.Schedule) - {"is_paused", "in_code", "owner"}:
        assert f"`{name}{signature(getattr(models.Schedule, name))}`" in text
    for name in public(ScheduleQuerySet):
        assert f"`{name}{signature(getattr(ScheduleQuerySet, name))}`" in text
    for name in ("create", "get", "filter"):
        shown = signature(getattr(durable.schedules, name)).replace("*, ", "")
        assert f"`durable.schedules.{name}{shown}`" in text


def test_every_scheme_is_named() -> None:
    text = "\n".join(page("docs/how-to/webhooks.md").lines)
    for name in durable.verify.__all__:
        assert f"durable.verify.{name}(" in text


def test_every_model_has_its_heading() -> None:
    known = {name for name in models.__all__ if hasattr(getattr(models, name), "_meta")}
    headings = set(reference("models").headings)
    others = {
        "Models",
        "Explanation",
        "The others",
        "Flow control",
        "The control room",
        "The admin",
    }
    assert known == headings - others


def test_every_status_is_named() -> None:
    run = rows(section(reference("models"), "Run"))["status"][0]
    assert NAME.findall(run) == [str(status) for status in RunStatus]
    step = rows(section(reference("models"), "Step"))["status"][0]
    assert NAME.findall(step) == [str(status) for status in StepStatus]


def test_every_action_on_runs_is_named() -> None:
    text = section(reference("models"), "Run")
    for name in public(RunQuerySet):
        assert f"`{name}{signature(getattr(RunQuerySet, name))}`" in text
    for name in public(Run) - {"is_live", "worker_losses"}:
        assert f"`{name}{signature(getattr(Run, name))}`" in text


# Signals


def test_signals_all_have_a_row_with_their_arguments(
    durable_kit: Kit,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    @durable.function(id="docs.signals", on=durable.Event("docs/asked"))
    def ask(ctx: durable.Context) -> None:
        ctx.step.run("one", lambda: 1)

    seen: dict[str, set[str]] = {}

    def listener(name: str) -> Callable[..., None]:
        def listen(**values: Any) -> None:
            seen[name] = set(values) - {"signal", "sender"}

        return listen

    known = {k: v for k, v in vars(signals).items() if isinstance(v, Signal)}
    listeners = {name: listener(name) for name in known}
    for name, signal in known.items():
        if name != "Signal":
            signal.connect(listeners[name])
    with django_capture_on_commit_callbacks(execute=True):
        durable_kit.send("docs/asked")
        durable_kit.run_until_idle()
    for name, signal in known.items():
        signal.disconnect(listeners[name])
    found = rows("\n".join(reference("signals").lines))
    assert {name: set(NAME.findall(cells[1])) for name, cells in found.items()} == seen


# Commands


def command_names(folder: Path) -> dict[str, str]:
    """Return the commands in a folder, with the app of each."""
    found = (folder / "management" / "commands").glob("durable_*.py")
    app = ".".join(folder.relative_to(PACKAGE.parent).parts)
    return {path.stem: app for path in found}


COMMANDS = {
    **command_names(PACKAGE),
    **command_names(PACKAGE.parent / "project" / "shop"),
}


def test_every_command_has_its_heading() -> None:
    assert set(reference("commands").headings) - {"Commands"} == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_a_command_is_named(name: str) -> None:
    text = section(reference("commands"), name)
    own = options(load_command_class(COMMANDS[name], name), name)
    common = options(BaseCommand(), name)
    assert set(re.findall(r"`(--[\w-]+)", text)) == own - common


def options(command: BaseCommand, name: str) -> set[str]:
    """Return the options of a command, and of its actions."""
    found = set()
    parsers = [command.create_parser("manage.py", name)]
    while parsers:
        for action in parsers.pop()._actions:
            found |= {o for o in action.option_strings if o.startswith("--")}
            if isinstance(action.choices, dict):
                parsers += action.choices.values()
    return found


def test_every_action_of_durable_runs_has_its_row() -> None:
    module = importlib.import_module("durable_jobs.management.commands.durable_runs")
    found = rows(section(reference("commands"), "durable_runs"))
    assert set(found) == set(module._ACTIONS)


def test_every_finding_of_the_doctor_has_its_row() -> None:
    source = (PACKAGE / "maintenance" / "doctor.py").read_text()
    known = set(re.findall(r'(?:check=|else |_found\(\s*)"([\w-]+)"', source))
    known |= {fault.name for fault in VIOLATIONS}
    text = section(reference("commands"), "durable_doctor")
    assert set(re.findall(r"^\| `([\w-]+)`", text, re.MULTILINE)) == known


# The kit


def test_every_option_of_the_kit_has_its_row_with_its_default() -> None:
    text = "\n".join(reference("testing").lines).partition("| method |")[0]
    found = {name: cells[0] for name, cells in rows(text).items()}
    options = inspect.signature(Kit).parameters.values()
    assert found == {
        option.name: f"`{option.default!r}`".replace("'", '"')
        for option in options
        if option.kind is option.KEYWORD_ONLY
    }


def test_every_method_of_the_kit_has_its_row() -> None:
    text = "\n".join(reference("testing").lines).partition("| method |")[2]
    assert set(rows(f"| method |{text}")) == public(Kit)
    for name in public(Kit):
        shown = signature(getattr(Kit, name)).replace("*, ", "")
        assert f"`{name}{shown}`" in text


# Failpoints


def test_every_failpoint_has_its_row_with_its_sentence() -> None:
    found = rows(section(FAILPOINTS, "Places"))
    shown = {
        name: f"{text}{f' [{detail}]' if detail else ''}."
        for name, (text, detail) in found.items()
    }
    assert shown == failpoints.POINTS


def test_every_action_of_a_failpoint_has_its_row() -> None:
    found = rows(section(FAILPOINTS, "Actions"))
    assert tuple(found) == failpoints.ACTIONS
