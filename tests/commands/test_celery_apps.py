"""Wake-up messages and the tick use the project's Celery app."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.lab.processes import ROOT

APPS = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.lab.settings"
from celery import Celery
first = Celery("first", broker="memory://")
second = Celery("second", broker="memory://")
TICK = "durable_jobs.tick"

def begins(app):  # as a beat and a worker do before they read their schedule
    app.loader.init_worker()
    app.finalize()
"""


def said(program: str, *, apps: str = APPS, **environment: str) -> list[str]:
    """Run a program after ``apps``, and return the lines of its output."""
    done = subprocess.run(
        [sys.executable, "-c", apps + program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("app", ["first", "second"])
def test_tick_is_in_the_schedule_of_the_app_whose_beat_runs(app: str) -> None:
    program = f"begins({app}); print(TICK in {app}.conf.beat_schedule)"
    assert said(program) == ["True"]


def test_messages_go_to_the_default_app_whatever_a_thread_created_last() -> None:
    program = """
import django, threading
django.setup()
from durable_jobs.worker.celery_app import project_app
third = Celery("third")
names = [project_app().main]
def ask():
    Celery("fourth")
    names.append(project_app().main)
thread = threading.Thread(target=ask)
thread.start()
thread.join()
second.set_default()  # once the app registry is ready, nothing changes the choice
names.append(project_app().main)
print(*names)
"""
    assert said(program) == ["first first first"]


def test_setting_names_the_app_of_senders_workers_and_beats() -> None:
    program = """
begins(first)
begins(second)
from durable_jobs.worker.celery_app import project_app
print(project_app().main, *(TICK in app.conf.beat_schedule for app in (first, second)))
from project.celery import app
begins(app)
print(TICK in app.conf.beat_schedule)
"""
    settings = {"LAB_CELERY_APP": "project.celery:app"}
    assert said(program, **settings) == ["project False False", "True"]


def test_worker_sends_through_the_app_that_started_it() -> None:
    program = """
from durable_jobs.worker.celery_app import project_app
worker = second.Worker(pool="solo", loglevel="ERROR", quiet=True)
print(project_app().main, *sorted(second.amqp.queues.consume_from))
"""
    program = "begins(second)\n" + program
    assert said(program) == ["second celery default"]


def test_worker_of_another_app_consumes_none_of_our_queues() -> None:
    program = """
begins(second)
worker = second.Worker(pool="solo", loglevel="ERROR", quiet=True)
print(*sorted(second.amqp.queues.consume_from))
"""
    settings = {"LAB_CELERY_APP": "project.celery:app"}
    assert said(program, **settings) == ["celery"]


BARE = """
import django, os, threading
from django.conf import settings
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "durable_jobs",
    ],
)
django.setup()
from celery import Celery
from durable_jobs.worker.celery_app import project_app
os.environ["DJANGO_SETTINGS_MODULE"] = "any.settings"
later = Celery("later", broker="memory://")
def ask():
    print(project_app().main)
ask()
thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""


def test_app_that_is_made_after_the_registry_is_ready_is_used() -> None:
    assert said(BARE, apps="") == ["later", "later"]


CHECKS = """
import django
django.setup()
from django.core.checks import run_checks
for found in run_checks():
    if found.id.startswith("durable_jobs."):
        print(found.id, found.msg)
"""


def test_check_names_the_apps_if_the_choice_is_ambiguous() -> None:
    settings = {"BROKER_URL": "memory://"}
    (line,) = said(CHECKS, **settings)
    assert line == (
        "durable_jobs.W007 There are 3 Celery apps ('first', 'project', 'second'). "
        "Wake-up messages are sent by 'first'."
    )
    settings["LAB_CELERY_APP"] = "project.celery:app"
    assert said(CHECKS, **settings) == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("project.nothing:app", "cannot be imported"),
        ("project.celery:nothing", "cannot be imported"),
        ("project.celery:os", "expected a Celery app"),
    ],
)
def test_check_refuses_a_setting_that_names_no_app(path: str, why: str) -> None:
    (line,) = said(CHECKS, LAB_CELERY_APP=path)
    assert line.startswith("durable_jobs.E005")
    assert path in line
    assert why in line
