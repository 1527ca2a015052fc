"""The attributes that a CEL text names, taken out of it.

CEL has no null for a missing key, and its binding converts all of an event for each
evaluation. So every chain of attributes that begins with a variable, such as
``event.data.total``, becomes a variable of its own, whose value Python looks up.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NamedTuple

#: What leads to an attribute: its variable, then keys and indexes.
Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<string>
        (?:[rR][bB]?|[bB][rR])(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
      | [bB]?(?:\"{3}(?:\\.|.)*?\"{3}|'{3}(?:\\.|.)*?'{3}
               |"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    )
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<quoted>`[^`]*`)
  | (?P<number>0x[0-9a-fA-F]+[uU]?|[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?[uU]?)
  | (?P<other>[=!<>]=|&&|\|\||.)
    """,
    re.VERBOSE | re.DOTALL,
)
_LOOPS = frozenset({"all", "exists", "exists_one", "existsOne"})
_COSTLY_LOOPS = frozenset({"map", "filter"})


class _Token(NamedTuple):
    kind: str
    text: str


_END = _Token("end", "")


class Refused(Exception):
    """The text is CEL, but not of the kind that is let in."""


@dataclass(frozen=True)
class Rewritten:
    """A text in which each attribute is a variable.

    ``values`` are the paths of the variables that hold an attribute, ``presences`` of
    those that tell whether there is one; ``loops`` tells whether the text has loops.
    """

    text: str
    values: dict[str, Path]
    presences: dict[str, Path]
    loops: bool


def rewrite(source: str, variables: tuple[str, ...]) -> Rewritten:
    """Take the attributes out of a CEL text that compiles, or raise ``Refused``."""
    return _Rewriter(source, variables).run()


class _Rewriter:
    def __init__(self, source: str, variables: tuple[str, ...]) -> None:
        self.variables = variables
        self.tokens = [
            _Token(str(found.lastgroup), found.group())
            for found in _TOKEN.finditer(source)
            if found.lastgroup != "space"
        ]
        self.prefix = "_v"
        while self.prefix in source:
            self.prefix += "_"
        self.bound = self._bound_names()
        self.values: dict[Path, str] = {}
        self.presences: dict[Path, str] = {}

    def run(self) -> Rewritten:
        parts: list[str] = []
        at = 0
        while at < len(self.tokens):
            part, at = self._part(at)
            parts.append(part)
        return Rewritten(
            text=" ".join(parts),
            values={name: path for path, name in self.values.items()},
            presences={name: path for path, name in self.presences.items()},
            loops=bool(self.bound),
        )

    def _part(self, at: int) -> tuple[str, int]:
        token = self._token(at)
        if token.kind != "name" or self._token(at - 1).text == ".":
            return token.text, at + 1
        if token.text == "has" and self._token(at + 2).text in self.variables:
            path, end = self._chain(at + 3)
            name = f"{self.prefix}p{len(self.presences)}"
            path = (self._token(at + 2).text, *path)
            return self.presences.setdefault(path, name), end + 1
        if token.text in self.variables:
            path, end = self._chain(at + 1)
            name = f"{self.prefix}{len(self.values)}"
            return self.values.setdefault((token.text, *path), name), end
        if token.text in self.bound:
            path, end = self._chain(at + 1)
            keys = "".join(f"[?{json.dumps(key)}]" for key in path)
            return token.text + (f"{keys}.orValue(dyn(null))" if keys else ""), end
        return token.text, at + 1

    def _chain(self, at: int) -> tuple[Path, int]:
        """Give the attributes and fixed indexes that follow, and where they end."""
        path: list[str | int] = []
        while True:
            first, second, third = (self._token(at + step) for step in range(3))
            if first.text == "." and second.kind == "quoted":
                path.append(second.text[1:-1])
                at += 2
            elif first.text == "." and second.kind == "name" and third.text != "(":
                path.append(second.text)
                at += 2
            elif first.text == "[" and third.text == "]":
                key = _constant(second)
                if key is None:
                    return tuple(path), at
                path.append(key)
                at += 3
            else:
                return tuple(path), at

    def _bound_names(self) -> set[str]:
        names = set()
        for at, token in enumerate(self.tokens):
            if self._token(at - 1).text != "." or self._token(at + 1).text != "(":
                continue
            if token.text in _COSTLY_LOOPS:
                raise Refused(
                    f"'{token.text}' is not available, as its cost grows with the "
                    "square of the list; expected 'exists', 'all' or a Python callable"
                )
            if token.text in _LOOPS and self._token(at + 3).text == ",":
                name = self._token(at + 2).text
                if name in self.variables:
                    raise Refused(f"a loop hides the variable '{name}'")
                names.add(name)
        return names

    def _token(self, at: int) -> _Token:
        return self.tokens[at] if 0 <= at < len(self.tokens) else _END


def _constant(token: _Token) -> str | int | None:
    """Give the key or index that a token always is, or None."""
    if token.kind == "number" and re.fullmatch(r"[0-9]{1,9}", token.text):
        return int(token.text)
    if token.kind != "string":
        return None
    text = token.text
    if text[0] in "rR" and text[1] not in "bB":
        text = text[1:]
    elif text[0] not in "\"'" or "\\" in text:
        return None
    fence = 3 if len(text) >= 6 and text[:3] in ('"""', "'''") else 1
    return text[fence:-fence]
