"""Rewrite a CEL text so that each attribute becomes a variable.

In CEL a missing key is an error, and the binding converts the whole event for each
evaluation. So each chain of attributes, such as ``event.data.total``, is replaced by a
separate variable, whose value Python looks up.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NamedTuple

#: The path of an attribute: its variable, then keys and indexes.
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
_ARITHMETIC = frozenset("+-*/%")
_BEFORE_A_SIGN = frozenset("([{,:?!<>+-*/%") | {
    "==",
    "!=",
    "<=",
    ">=",
    "&&",
    "||",
    "in",
}
#: Functions whose result depends on the type of a large integer.
_CONVERSIONS = frozenset({"string", "size", "type", "int", "uint", "double", "bytes"})


class _Token(NamedTuple):
    kind: str
    text: str


_END = _Token("end", "")


class UnsupportedExpression(Exception):
    """The text is valid CEL, but uses an unsupported feature."""


@dataclass(frozen=True)
class Rewritten:
    """A text in which each attribute is a variable.

    ``values`` maps variables to the path of their attribute. ``presences`` maps
    variables that are true if an attribute is present. ``strings`` maps variables that
    only ``string()`` converts. ``loops``: the text has loops. The other flags concern
    numbers: the text ``calculates`` or ``converts``, has ``floats`` or
    ``large_floats``, or has integers that no float equals (``lossy``).
    """

    text: str
    values: dict[str, Path]
    presences: dict[str, Path]
    strings: dict[str, Path]
    loops: bool
    calculates: bool
    converts: bool
    floats: bool
    large_floats: bool
    lossy: bool


def rewrite(source: str, variables: tuple[str, ...]) -> Rewritten:
    """Rewrite a valid CEL text. Raise ``UnsupportedExpression`` if that fails."""
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
        self.strings: dict[Path, str] = {}
        self.converts = False

    def run(self) -> Rewritten:
        parts: list[str] = []
        at = 0
        while at < len(self.tokens):
            part, at = self._part(at)
            parts.append(part)
        numbers = [
            _number(token.text) for token in self.tokens if token.kind == "number"
        ]
        floats = [n for n in numbers if isinstance(n, float)]
        ints = [n for n in numbers if isinstance(n, int)]
        calls = {
            token.text
            for at, token in enumerate(self.tokens)
            if token.kind == "name" and self._token(at + 1).text == "("
        }
        return Rewritten(
            text=" ".join(parts),
            values={name: path for path, name in self.values.items()},
            presences={name: path for path, name in self.presences.items()},
            strings={name: path for path, name in self.strings.items()},
            loops=bool(self.bound),
            calculates=any(map(self._calculates, range(len(self.tokens)))),
            converts=self.converts,
            floats=bool(floats) or "double" in calls,
            large_floats=any(abs(n) >= 2**53 for n in floats) or "double" in calls,
            lossy=any(int(float(n)) != n for n in ints),
        )

    def _calculates(self, at: int) -> bool:
        """Return whether a token is arithmetic, other than joining strings."""
        token, last, following = (self._token(at + step) for step in (0, -1, 1))
        if token.kind != "other" or token.text not in _ARITHMETIC:
            return False
        if token.text == "+" and "string" in (last.kind, following.kind):
            return False
        begins = last is _END or last.text in _BEFORE_A_SIGN
        return not (token.text == "-" and begins and following.kind == "number")

    def _part(self, at: int) -> tuple[str, int]:
        token = self._token(at)
        if token.kind != "name" or self._token(at - 1).text == ".":
            self.converts |= token.text == "size"
            return token.text, at + 1
        if token.text == "has" and self._token(at + 2).text in self.variables:
            path, end = self._chain(at + 3)
            name = f"{self.prefix}p{len(self.presences)}"
            path = (self._token(at + 2).text, *path)
            return self.presences.setdefault(path, name), end + 1
        if token.text == "string" and self._token(at + 2).text in self.variables:
            path, end = self._chain(at + 3)
            if self._token(at + 1).text == "(" and self._token(end).text == ")":
                name = f"{self.prefix}s{len(self.strings)}"
                path = (self._token(at + 2).text, *path)
                name = self.strings.setdefault(path, name)
                return f"string({name})", end + 1
        if token.text in _CONVERSIONS and self._token(at + 1).text == "(":
            self.converts = True
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
        """Return the attributes and constant indexes that follow, and their end."""
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
                raise UnsupportedExpression(
                    f"'{token.text}' is not available, as its cost grows with the "
                    "square of the list; expected 'exists', 'all' or a Python callable"
                )
            if token.text in _LOOPS and self._token(at + 3).text == ",":
                name = self._token(at + 2).text
                if name in self.variables:
                    raise UnsupportedExpression(f"a loop hides the variable '{name}'")
                names.add(name)
        return names

    def _token(self, at: int) -> _Token:
        return self.tokens[at] if 0 <= at < len(self.tokens) else _END


def _number(text: str) -> int | float:
    """Return the number of a token."""
    text = text.rstrip("uU")
    try:
        return int(text, 0) if text[:2] == "0x" else int(text)
    except ValueError:
        return float(text)


def _constant(token: _Token) -> str | int | None:
    """Return the constant key or index of a token, or None."""
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
