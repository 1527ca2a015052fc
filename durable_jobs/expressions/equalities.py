"""Equalities that a condition requires, which an index can look up.

``event.data.x == async.data.x && async.data.n > 3`` is true only for events with the
run's value of ``data.x``. So a wait with this condition is looked up by that value, as
with ``match="data.x"``. Then the whole condition is evaluated.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from durable_jobs.expressions.rewriting import Path, _Rewriter, _Token


@functools.lru_cache(maxsize=1024)
def equalities(
    source: str, first_name: str, second_name: str
) -> tuple[tuple[Path, Path], ...]:
    """Return the pairs of attributes of two variables that must be equal.

    Only equalities joined by ``&&`` at the top level count. ``source`` is valid CEL.
    """
    tokens = _Rewriter(source, (first_name, second_name))
    found = []
    for first, last in _conjuncts(tokens.tokens):
        pair = _equality(tokens, first, last)
        if pair is None:
            continue
        left, right = pair
        if (left[0], right[0]) == (first_name, second_name):
            found.append((left[1:], right[1:]))
        elif (left[0], right[0]) == (second_name, first_name):
            found.append((right[1:], left[1:]))
    return tuple(found)


def _conjuncts(tokens: list[_Token]) -> Iterator[tuple[int, int]]:
    """Yield the ranges joined by ``&&`` at the top level; none with ``||`` or ``?``."""
    depth, begin, parts = 0, 0, []
    for at, token in enumerate(tokens):
        if token.text in "([{" and token.kind == "other":
            depth += 1
        elif token.text in ")]}" and token.kind == "other":
            depth -= 1
        elif depth == 0 and token.text in ("||", "?"):
            return
        elif depth == 0 and token.text == "&&":
            parts.append((begin, at))
            begin = at + 1
    yield from [*parts, (begin, len(tokens))]


def _equality(rewriter: _Rewriter, first: int, last: int) -> tuple[Path, Path] | None:
    """Return the two attributes if the range is one comparison of them, or None."""
    left, at = _attribute(rewriter, first)
    if left is None or at >= last or rewriter.tokens[at].text != "==":
        return None
    right, at = _attribute(rewriter, at + 1)
    return None if right is None or at != last else (left, right)


def _attribute(rewriter: _Rewriter, at: int) -> tuple[Path | None, int]:
    token = rewriter.tokens[at] if at < len(rewriter.tokens) else None
    if token is None or token.kind != "name" or token.text not in rewriter.variables:
        return None, at
    path, end = rewriter._chain(at + 1)
    return (token.text, *path), end
