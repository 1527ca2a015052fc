"""An event as code: the same again from a shell, from Python, or in a test."""

from __future__ import annotations

import json
import pprint
import shlex
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.payloads import SHOWN
from durable_jobs.serialization.tags import TAG, VALUE

#: Where the API's address for events is, below that of the app.
EVENTS = "api/v1/events"
#: What stands for the key of the reader.
KEY = "$DURABLE_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A text to be copied, with the id of its element."""

    id: str
    label: str | Promise
    text: str


def snippets(request: HttpRequest, name: str, text: str | None) -> list[Snippet]:
    """Return an event as cURL, Python and pytest; none when it is too long to read.

    ``text`` is its data as it is stored. What JSON has no type for, such as a date, is
    given as the text or the tree that it is stored as.
    """
    try:
        data = {} if text is None else plain(json.loads(text))
    except (ValueError, RecursionError):
        return []
    if text is not None and len(text) > SHOWN:
        return []
    return [
        Snippet(id="durable-curl", label=_("cURL"), text=_curl(request, name, data)),
        Snippet(id="durable-python", label=_("Python"), text=_python(name, data)),
        Snippet(id="durable-pytest", label=_("pytest"), text=_pytest(name, data)),
    ]


def plain(tree: Any) -> Any:
    """Return a stored tree without tags: what they are around stays."""
    if isinstance(tree, dict):
        if set(tree) == {TAG, VALUE}:
            return plain(tree[VALUE])
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    return tree


def _curl(request: HttpRequest, name: str, data: Any) -> str:
    body = json.dumps({"name": name, "data": data}, ensure_ascii=False)
    return (
        f"curl -X POST {shlex.quote(_address(request))} \\\n"
        f'  -H "Authorization: Bearer {KEY}" \\\n'
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def _address(request: HttpRequest) -> str:
    try:
        base = reverse("durable_jobs:webhook", args=["x"]).removesuffix("webhooks/x")
    except NoReverseMatch:
        base = "/durable/"
    return request.build_absolute_uri(f"{base}{EVENTS}")


def _python(name: str, data: Any) -> str:
    return f"from durable_jobs import durable\n\n{_call('durable.send', name, data)}"


def _pytest(name: str, data: Any) -> str:
    words = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).strip("_")
    sent = _call("durable_kit.send", name, data).replace("\n", "\n    ")
    return (
        "from durable_jobs.models import Run\n\n\n"
        f"def test_{words.lower() or 'event'}(durable_kit):\n"
        f"    event_id = {sent}\n"
        f"    durable_kit.run_until_idle()\n\n"
        f"    for run in Run.objects.filter(event_id=event_id):\n"
        f"        assert run.status == 'completed', run.error\n"
    )


def _call(function: str, name: str, data: Any) -> str:
    shown = pprint.pformat(data, width=72, sort_dicts=False)
    if "\n" not in shown and len(shown) + len(name) < 60:
        return f"{function}({name!r}, {shown})"
    inner = shown.replace("\n", "\n    ")
    return f"{function}(\n    {name!r},\n    {inner},\n)"
