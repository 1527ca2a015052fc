"""Export a run as a document: its data and its recorded steps as stored JSON.

``durable_jobs.testing`` imports the document, so that a run of production becomes a
test.
"""

from __future__ import annotations

import json
import pprint
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Cast

from durable_jobs.models import Run, Step
from durable_jobs.store import db

_RUN = ("function", "version", "status", "reason", "trigger")
_STEP = ("key", "name", "kind", "status", "position", "attempt", "error", "detail")
_TIMES = ("started_at", "ended_at")


def history(run: Run) -> dict[str, Any]:
    """Return a run with all its steps and their stored JSON, without log lines."""
    texts = {f"{name}_text": Cast(name, TextField()) for name in ("data", "output")}
    rows = db.rows(Run).filter(pk=run.pk)
    found = rows.annotate(**texts).values(
        *_RUN, *texts, "event_meta", "error", "queued_at", *_TIMES
    )[0]
    return {
        "id": str(run.pk),
        **{name: found[name] for name in _RUN},
        "queued_at": found["queued_at"].isoformat(),
        **{name: _iso(found[name]) for name in _TIMES},
        "event_meta": found["event_meta"],
        "data": _tree(found["data_text"]),
        "output": _tree(found["output_text"]),
        "error": found["error"],
        "steps": _steps(run),
    }


def _steps(run: Run) -> list[dict[str, Any]]:
    rows = db.rows(Step).filter(run_id=run.pk)
    texts = {f"{name}_text": Cast(name, TextField()) for name in ("input", "output")}
    values = rows.annotate(**texts).values(*_STEP, *_TIMES, "parent__key", *texts)
    return [
        {
            **{name: row[name] for name in _STEP},
            **{name: _iso(row[name]) for name in _TIMES},
            "parent": row["parent__key"],
            "input": _tree(row["input_text"]),
            "output": _tree(row["output_text"]),
        }
        for row in values.order_by("position", "pk")
    ]


def as_test(document: dict[str, Any]) -> str:
    """Return the source of a test that replays a document.

    The replay does not execute recorded steps.
    """
    name = "".join(c if c.isalnum() else "_" for c in document["function"]).lower()
    text = json.dumps(document, indent=1, ensure_ascii=True)
    literal = pprint.pformat(text, width=80)
    if not literal.startswith("("):
        literal = f"(\n {literal}\n)"
    return (
        f'"""The run {document["id"]} of {document["function"]!r}, again."""\n\n'
        f"import json\n\n"
        f"HISTORY = json.loads(\n{_indented(literal)}\n)\n\n\n"
        f"def test_{name}_as_it_was(durable_kit):\n"
        f"    run = durable_kit.replay(HISTORY)\n\n"
        f"    assert run.status == {document['status']!r}\n"
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _tree(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _iso(value: Any) -> str | None:
    return None if value is None else value.isoformat()
