"""The error of a value that cannot be stored, with the path to the reason."""

from __future__ import annotations

EXPECTED = (
    "expected None, bool, int, float, str, list, tuple, dict, set, datetime, date, "
    "time, timedelta, Decimal, UUID, bytes, an enum member, a dataclass, a pydantic "
    "model or a saved model instance"
)


class PathError(Exception):
    """A part of a value cannot be stored. Converted to ``PayloadError``.

    The path to the part is built from the inside out while the error propagates.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def inside(self, step: int | str) -> None:
        """Prepend a step to the path: an index, a key, or a field name."""
        if isinstance(step, int):
            self.steps.append(f"[{step}]")
        elif step.isidentifier():
            self.steps.append(f".{step}")
        else:
            shown = step if len(step) <= 40 else step[:40] + "…"
            self.steps.append(f"[{shown!r}]")

    def sentence(self, what: str) -> str:
        """Return the message: the value, the path and the reason."""
        steps = self.steps[::-1]
        if len(steps) > 12:
            steps = [*steps[:6], "…", *steps[-5:]]
        place = "".join(steps)
        if not place:
            return f"{what}: {self.reason}."
        if what.isidentifier():
            return f"{what}{place}: {self.reason}."
        return f"{what}, at {place.removeprefix('.')}: {self.reason}."
