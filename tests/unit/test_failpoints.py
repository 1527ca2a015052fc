"""Failpoints: their rules, their places, and their effects on a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import IntegrityError, OperationalError

import durable_jobs
from durable_jobs import failpoints
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.failpoints import POINTS, VARIABLE, failpoint, parse, watching

ROOT = Path(durable_jobs.__file__).parent
HIT = re.compile(r"""\bfailpoint\(\s*"([\w.]+)\"""")


def test_failpoints_in_the_code_and_in_the_catalogue_are_the_same() -> None:
    found = {
        name
        for path in ROOT.rglob("*.py")
        for name in HIT.findall(path.read_text(encoding="utf-8"))
    }
    assert found == set(POINTS)


def test_unknown_failpoint_is_an_error_while_it_is_watched():
    failpoint("no.such.place")
    with (
        watching(lambda name, detail: None),
        pytest.raises(ConfigurationError, match="Describe it in POINTS"),
    ):
        failpoint("no.such.place")


def test_watchers_all_receive_hits_until_they_stop() -> None:
    first, second = [], []
    with watching(lambda *place: first.append(place)):
        with watching(lambda *place: second.append(place)):
            failpoint("step.body", "charge")
        failpoint("step.after", "charge")
    failpoint("step.before", "next")
    assert first == [("step.body", "charge"), ("step.after", "charge")]
    assert second == [("step.body", "charge")]


def passed(text: str, *details: str) -> list[int]:
    """Return the hits of ``step.body``, from 1, at which a rule raises."""
    rules, raised = parse(text), []
    for number, detail in enumerate(details, 1):
        try:
            for rule in rules:
                rule.passed("step.body", detail)
        except OperationalError:
            raised.append(number)
    return raised


def test_rule_acts_at_every_hit_at_one_or_from_one_on() -> None:
    assert passed("step.body=raise", *"abc") == [1, 2, 3]
    assert passed("step.body=raise@2", *"abc") == [2]
    assert passed("step.body=raise@2+", *"abc") == [2, 3]
    assert passed("step.after=raise", *"abc") == []


def test_rule_with_a_detail_counts_the_hits_with_that_detail() -> None:
    assert passed("step.body[a b]=raise@2", "a b", "c", "a b", "a b") == [3]


def test_several_rules_are_separated_by_semicolons() -> None:
    rules = parse(" step.body[x;y]=sleep(0.5)@2 ; record.committed = kill@3+;")
    assert [(rule.name, rule.detail, rule.at, rule.on) for rule in rules] == [
        ("step.body", "x;y", 2, False),
        ("record.committed", None, 3, True),
    ]


def test_raise_names_an_error_of_the_database() -> None:
    (rule,) = parse("step.body=raise(IntegrityError)")
    with pytest.raises(IntegrityError, match=r"failpoint step\.body"):
        rule.passed("step.body", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("step.body", "place[detail]=action(argument)@hit"),
        ("step.body=kill@0", "place[detail]=action(argument)@hit"),
        ("step.body=kill step.after=kill", "place[detail]=action(argument)@hit"),
        ("step.bodi=kill", "one of step.before"),
        ("step.body=explode", "one of kill, stop, raise, sleep"),
        ("step.body=kill(9)", "kill, which takes no argument"),
        ("step.body=sleep", "sleep(seconds)"),
        ("step.body=sleep(-1)", "sleep(seconds)"),
        ("step.body=sleep(nan)", "sleep(seconds)"),
        ("step.body=raise(ValueError)", "the name of an error in django.db"),
        ("step.body=raise(models)", "the name of an error in django.db"),
    ],
)
def test_invalid_rule_is_refused_with_what_was_expected(
    text: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        failpoints.arm(text)


def manage(text: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the demo project with failpoints armed."""
    return subprocess.run(
        [sys.executable, "manage.py", "durable_tick"],
        cwd=ROOT.parent,
        env={**os.environ, VARIABLE: text, "DATABASE_URL": "sqlite://:memory:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_process_is_armed_by_its_environment_and_logs_it_once() -> None:
    armed = manage("tick.begin=kill")
    assert armed.returncode == -signal.SIGKILL
    assert armed.stderr.count("Failpoints are armed in process") == 1


def test_process_with_wrong_failpoints_does_not_start() -> None:
    refused = manage("tick.begin=kil")
    assert refused.returncode == 1
    assert "expected one of kill, stop, raise, sleep" in refused.stderr
