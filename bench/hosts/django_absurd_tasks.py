"""The measured tasks, with django-absurd's steps."""

from __future__ import annotations

from functools import partial

from django.tasks import task
from django_absurd import get_absurd_context

from bench.marks import body


@task
def steps(run: int, sizes: dict[str, int]) -> int:
    """Run steps with empty bodies."""
    context = get_absurd_context()
    for index in range(sizes["steps"]):
        context.step(f"step {index}", partial(body, run, index))
    return sizes["steps"]


@task
def sleep(run: int, sizes: dict[str, int]) -> None:
    """Sleep between two steps."""
    context = get_absurd_context()
    context.step("before", partial(body, run, 0))
    context.sleep_for("sleep", sizes["seconds"])
    context.step("after", partial(body, run, 1))


@task
def long(run: int, sizes: dict[str, int]) -> None:
    """Run many steps, sleep, and run one more step."""
    context = get_absurd_context()
    for index in range(sizes["steps"]):
        context.step(f"step {index}", partial(body, run, index))
    context.sleep_for("sleep", sizes["seconds"])
    context.step("after", partial(body, run, sizes["steps"]))
