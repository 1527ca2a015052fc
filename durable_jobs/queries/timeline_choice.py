"""Choose the steps of a run that a page draws.

``overview`` draws at most ``MAX_ROWS`` steps: what failed, runs or waits, then the
first and last, then the slowest, each with its parents. Other steps are folded into a
line with their number, or counted in the line of their parent. ``matching`` and
``children`` list steps by page.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from durable_jobs.queries.step_outline import (
    FEW,
    OutlineStep,
    Phase,
    StepOutline,
    StepSummary,
)

MAX_ROWS = 80
#: Steps that are drawn at the beginning and at the end of neighbours.
EDGE = 10
SLOWEST = 5
#: Failed, running and waiting branches that are drawn of one step.
MAX_BRANCHES = 10
PAGE_SIZE = 100
MOST_SLOWEST = 20

_CHOSEN_PHASES = (Phase.FAILED, Phase.RUNNING, Phase.WAITING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenStep:
    """A step to draw. ``hidden`` counts its children if they are not all drawn."""

    step: OutlineStep
    depth: int
    hidden: StepSummary | None = None
    #: The names of its parents, if these are not drawn.
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedSteps:
    """Neighbours that are drawn as one line. ``index`` is that of the first one."""

    first: OutlineStep
    last: OutlineStep
    depth: int
    index: int
    summary: StepSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPage:
    """The steps to draw, of ``total`` steps on ``pages`` pages."""

    items: list[ChosenStep | FoldedSteps]
    total: int
    page: int = 1
    pages: int = 1


def overview(outline: StepOutline, pinned: OutlineStep | None = None) -> StepPage:
    """Return the steps that say most about a run, and ``pinned``."""
    selection = _Selection(outline)
    if pinned is not None:
        selection.add(pinned)
    selection.choose()
    items = list(selection.layout(outline.roots, 0))
    return StepPage(items=items, total=len(outline.steps))


def matching(
    outline: StepOutline, phase: Phase | None, name: str, page: int
) -> StepPage:
    """Return the steps of a phase with ``name`` in their names, by page."""
    steps = [*outline.walk()] if phase is None else outline.innermost(phase)
    return _listed(outline, _named(steps, name), page)


def slowest(outline: StepOutline, name: str) -> StepPage:
    """Return the steps that took the most time, with ``name`` in their names."""
    steps = _named([*outline.walk()], name)
    return _listed(outline, outline.slowest(steps, MOST_SLOWEST), 1)


def children(outline: StepOutline, parent: OutlineStep | None, page: int) -> StepPage:
    """Return the children of a step, or the run's own steps, by page."""
    siblings = parent.children if parent else outline.roots
    above = [*reversed([*parent.ancestors()]), parent] if parent else []
    shown, page, pages = _page(siblings, page)
    items: list[ChosenStep | FoldedSteps] = [
        ChosenStep(
            step=step,
            depth=depth,
            hidden=outline.summary(step.children) if step is parent else None,
        )
        for depth, step in enumerate(above)
    ]
    items += [
        ChosenStep(step=step, depth=len(above), hidden=_hidden(outline, step))
        for step in shown
    ]
    return StepPage(items=items, total=len(siblings), page=page, pages=pages)


def page_of(index: int) -> int:
    """Return the page of ``children`` on which a child stands."""
    return index // PAGE_SIZE + 1


def _named(steps: Sequence[OutlineStep], name: str) -> list[OutlineStep]:
    wanted = name.casefold()
    return [step for step in steps if wanted in step.name.casefold()]


def _listed(outline: StepOutline, steps: Sequence[OutlineStep], page: int) -> StepPage:
    shown, page, pages = _page(steps, page)
    items: list[ChosenStep | FoldedSteps] = [
        ChosenStep(
            step=step,
            depth=0,
            hidden=_hidden(outline, step),
            path=tuple(reversed([above.name for above in step.ancestors()])),
        )
        for step in shown
    ]
    return StepPage(items=items, total=len(steps), page=page, pages=pages)


def _page(
    steps: Sequence[OutlineStep], page: int
) -> tuple[Sequence[OutlineStep], int, int]:
    """Return one page of steps, its number, and the number of pages."""
    pages = max(-(-len(steps) // PAGE_SIZE), 1)
    page = min(max(page, 1), pages)
    return steps[(page - 1) * PAGE_SIZE : page * PAGE_SIZE], page, pages


def _hidden(outline: StepOutline, step: OutlineStep) -> StepSummary | None:
    return outline.summary(step.children) if step.children else None


class _Selection:
    """The steps that are drawn, as far as there is room."""

    def __init__(self, outline: StepOutline) -> None:
        self._outline = outline
        self._chosen: set[uuid.UUID] = set()
        #: The drawn branches of steps that have too many.
        self._branches: Counter[uuid.UUID] = Counter()

    def choose(self) -> None:
        """Choose the steps, the most important ones first."""
        for phase in _CHOSEN_PHASES:
            for step in self._outline.innermost(phase):
                self.add(step)
        roots = self._outline.roots
        self._add_all([*roots[:EDGE], *roots[-EDGE:]])
        single = (
            step
            for step in self._outline.walk()
            if not any(above.is_crowd for above in step.ancestors())
        )
        self._add_all(self._outline.slowest(single, SLOWEST))
        self._open(roots)
        for step in self._outline.walk():
            if step.pk in self._chosen and not step.is_crowd:
                self._open(step.children)

    def add(self, step: OutlineStep) -> None:
        """Choose a step with its parents, if there is room."""
        if step.pk in self._chosen:
            return
        path = [step]
        for above in step.ancestors():
            if above.pk in self._chosen:
                break
            path.append(above)
        crowds = [one.parent.pk for one in path if one.parent and one.parent.is_crowd]
        if len(path) > self._room() or any(
            self._branches[crowd] >= MAX_BRANCHES for crowd in crowds
        ):
            return
        self._branches.update(crowds)
        self._chosen.update(one.pk for one in path)

    def layout(
        self, siblings: Sequence[OutlineStep], depth: int
    ) -> Iterator[ChosenStep | FoldedSteps]:
        """Yield the lines of some neighbours and of what is below them."""
        for index, run in self._runs(siblings):
            if run[0].pk not in self._chosen:
                if not (run[0].parent and run[0].parent.is_crowd):
                    yield self._folded(run, index, depth)
                continue
            for step in run:
                below = any(child.pk in self._chosen for child in step.children)
                counted = step.is_crowd or not below
                hidden = _hidden(self._outline, step) if counted else None
                yield ChosenStep(step=step, depth=depth, hidden=hidden)
                if below:
                    yield from self.layout(step.children, depth + 1)

    def _folded(
        self, steps: Sequence[OutlineStep], index: int, depth: int
    ) -> FoldedSteps:
        return FoldedSteps(
            first=steps[0],
            last=steps[-1],
            depth=depth,
            index=index,
            summary=self._outline.summary(steps),
        )

    def _room(self) -> int:
        return MAX_ROWS - len(self._chosen)

    def _add_all(self, steps: Sequence[OutlineStep]) -> None:
        for step in steps:
            self.add(step)

    def _open(self, siblings: Sequence[OutlineStep]) -> None:
        """Choose the first and last of some neighbours, and fill small gaps."""
        self._add_all([*siblings[:EDGE], *siblings[-EDGE:]])
        gaps = [run for _, run in self._runs(siblings) if run[0].pk not in self._chosen]
        for gap in sorted(gaps, key=len):
            if len(gap) <= min(FEW, self._room()):
                self._add_all(gap)

    def _runs(
        self, siblings: Sequence[OutlineStep]
    ) -> list[tuple[int, list[OutlineStep]]]:
        """Return neighbours in runs that are all chosen or all not, with indexes."""
        runs: list[tuple[int, list[OutlineStep]]] = []
        previous: bool | None = None
        for index, step in enumerate(siblings):
            is_chosen = step.pk in self._chosen
            if is_chosen is not previous:
                runs.append((index, []))
            runs[-1][1].append(step)
            previous = is_chosen
        return runs
