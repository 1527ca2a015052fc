"""Code that sends an event again: cURL, Python and pytest."""

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

from durable_jobs.admin.payloads import MAX_PAYLOAD_LENGTH
from durable_jobs.serialization.tag_format import TAG, VALUE

#: The API path for events, below the package's URLs.
EVENTS = "api/v1/events"
#: Placeholder for the reader's API key.
KEY = "$DURABLE_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A code snippet, with the id of its HTML element."""

    id: str
    label: str | Promise
    text: str


def snippets(request: HttpRequest, name: str, text: str | None) -> list[Snippet]:
    """Return an event as cURL, Python and pytest. Return [] if its data is too long.

    ``text`` is the stored data. Values without a JSON type, such as dates, appear in
    their stored form.
    """
    try:
        data = {} if text is None else plain(json.loads(text))
    except (ValueError, RecursionError):
        return []
    if text is not None and len(text) > MAX_PAYLOAD_LENGTH:
        return []
    return [
        Snippet(id="durable-curl", label=_("cURL"), text=_curl(request, name, data)),
        Snippet(id="durable-python", label=_("Python"), text=_python(name, data)),
        Snippet(id="durable-pytest", label=_("pytest"), text=_pytest(name, data)),
    ]


def plain(tree: Any) -> Any:
    """Return a stored tree in which each tag is replaced by its value."""
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
