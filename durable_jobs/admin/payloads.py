"""Render stored JSON as bounded, indented and escaped HTML.

The text is read from the database without decoding. A page imports no class, and also
shows payloads that your project can no longer decode. References to model instances
can become links.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Cast, Left
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from durable_jobs.admin.object_links import KIND, References
from durable_jobs.serialization.tag_format import TAG, VALUE

#: Characters of a payload that a page shows.
MAX_PAYLOAD_LENGTH = 100_000
#: Levels that are indented. Deeper levels use the last indentation.
MAX_INDENT = 20
#: Lists and dicts of plain values up to this length stay on one line.
MAX_LINE_LENGTH = 72
#: Lines of a block that fit without scrolling, and characters of a line on a phone.
FITTING_LINES, PHONE_LINE_LENGTH = 24, 40


class _Number(str):
    """A number as stored: of any size and not rounded."""


def stored(name: str) -> Left:
    """Return a query expression for the beginning of a JSON column's text."""
    return Left(Cast(name, TextField()), MAX_PAYLOAD_LENGTH + 1)


def payload(
    text: str | None, name: Any, references: References | None = None
) -> SafeString | None:
    """Return JSON text as indented HTML, or None if there is no payload.

    ``name`` names the block for screen readers. With ``references``, model instances
    in it are links.
    """
    if text is None:
        return None
    if len(text) > MAX_PAYLOAD_LENGTH:
        note = _("The first %(count)s characters.") % {
            "count": f"{MAX_PAYLOAD_LENGTH:,}"
        }
        start = preformatted(f"{text[:MAX_PAYLOAD_LENGTH]}…", name)
        return start + format_html('<p class="durable-quiet">{}</p>', note)
    return preformatted(_pretty(text, references), name)


def preformatted(text: str, name: Any) -> SafeString:
    """Return text in a block that the keyboard reaches if it may scroll."""
    attributes = scroll_attributes(text.splitlines(), name)
    return format_html('<pre class="durable-payload"{}>{}</pre>', attributes, text)


def scroll_attributes(lines: Iterable[str], name: Any) -> SafeString:
    """Return attributes for keyboard users of a block, empty if all lines fit."""
    if sum(1 + len(line) // PHONE_LINE_LENGTH for line in lines) <= FITTING_LINES:
        return SafeString("")
    return format_html(' tabindex="0" role="group" aria-label="{}"', name)


def hidden() -> SafeString:
    """Return the text shown in place of a payload."""
    text = _("Hidden: you may not see payloads.")
    return format_html('<p class="durable-quiet">{}</p>', text)


def parse_error(text: str) -> dict[str, Any] | None:
    """Return a stored error, or None if the text is invalid or cut."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    known = isinstance(found, dict) and {"type", "message"} <= found.keys()
    return found if known else None


def error(text: str | None, show_payloads: bool = True) -> SafeString | None:
    """Return a stored error as HTML: type, message and traceback.

    ``show_payloads`` false shows the type only.
    """
    if text is None:
        return None
    found = parse_error(text)
    if found is None:
        return payload(text, _("Error")) if show_payloads else hidden()
    kind = found["type"]
    if not show_payloads:
        head = format_html('<p class="durable-error"><strong>{}</strong></p>', kind)
        return head + hidden()
    head = format_html(
        '<p class="durable-error"><strong>{}</strong> {}</p>', kind, found["message"]
    )
    if not found.get("traceback"):
        return head
    return head + preformatted(str(found["traceback"]), _("Traceback"))


def _pretty(text: str, references: References | None) -> str:
    try:
        tree = json.loads(text, parse_int=_Number, parse_float=_Number)
        if references is not None:
            tree = _linked(tree, references)
        return format_html_join("", "{}", ((piece,) for piece in _pieces(tree)))
    except (ValueError, RecursionError):
        return text


def _linked(tree: Any, references: References) -> Any:
    """Return a tree in which references are replaced by links (SafeStrings)."""
    if _is_tag(tree) and tree[TAG] == KIND:
        link = references.link(tree[VALUE])
        return tree if link is None else link
    if isinstance(tree, dict):
        return {key: _linked(item, references) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_linked(item, references) for item in tree]
    return tree


def _pieces(tree: Any, depth: int = 1) -> Iterator[str]:
    """Yield the pieces of a tree. Pieces that are not SafeStrings need escaping."""
    if _is_tag(tree):
        yield format_html('<i class="durable-tag">{}</i> ', tree[TAG])
        yield from _pieces(tree[VALUE], depth)
    elif isinstance(tree, dict) and tree:
        items = [(format_html("<b>{}</b>: ", _text(key)), tree[key]) for key in tree]
        yield from _block("{}", items, depth)
    elif isinstance(tree, list) and tree:
        yield from _block("[]", [("", item) for item in tree], depth)
    else:
        yield _text(tree)


def _block(ends: str, items: Sequence[tuple[str, Any]], depth: int) -> Iterator[str]:
    before, between, after = _margins(items, depth)
    yield ends[0] + before
    for index, (head, item) in enumerate(items):
        if index:
            yield between
        yield head
        yield from _pieces(item, depth + 1)
    yield after + ends[1]


def _margins(items: Sequence[tuple[str, Any]], depth: int) -> tuple[str, str, str]:
    """Return the text before, between and after the items of a block."""
    plain = all(_is_plain(item) for _, item in items)
    if (
        plain
        and sum(len(head) + len(_text(item)) for head, item in items) <= MAX_LINE_LENGTH
    ):
        return "", ", ", ""
    inner = "\n" + "  " * min(depth, MAX_INDENT)
    return inner, f",{inner}", "\n" + "  " * min(depth - 1, MAX_INDENT)


def _is_tag(tree: Any) -> bool:
    return isinstance(tree, dict) and set(tree) == {TAG, VALUE}


def _is_plain(tree: Any) -> bool:
    if _is_tag(tree):
        return not isinstance(tree[VALUE], dict | list)
    return not isinstance(tree, dict | list) or not tree


def _text(tree: Any) -> str:
    if isinstance(tree, SafeString):
        return tree
    if isinstance(tree, _Number):
        return str(tree)
    return json.dumps(tree, ensure_ascii=False)
