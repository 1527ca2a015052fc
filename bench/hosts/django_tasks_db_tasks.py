"""The measured tasks: each step is a task, which enqueues the next one."""

from __future__ import annotations

from datetime import timedelta

from django.tasks import task
from django.utils import timezone

from bench.marks import body


@task
def steps(run: int, step: int, sizes: dict[str, int]) -> None:
    """Execute one step."""
    body(run, step)
    if step + 1 < sizes["steps"]:
        steps.enqueue(run, step + 1, sizes)


@task
def sleep(run: int, step: int, sizes: dict[str, int]) -> None:
    """Execute the step before or after a delay."""
    body(run, step)
    if step == 0:
        due = timezone.now() + timedelta(seconds=sizes["seconds"])  # noqa: TID251  # not our code
        sleep.using(run_after=due).enqueue(run, 1, sizes)
