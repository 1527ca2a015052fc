"""Render the log lines of a step's body as a table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from durable_jobs.admin.payloads import scroll_attributes

_CSS_CLASSES = {"WARNING": "warn", "ERROR": "bad", "CRITICAL": "bad"}


def table(logs: Mapping[str, Any] | None) -> SafeString | None:
    """Return the table of one attempt's log lines, or None without any."""
    if not logs or not logs["lines"]:
        return None
    rows = format_html_join(
        "",
        '<tr class="durable-line {}"><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>',
        (
            (
                _CSS_CLASSES.get(line["level"], ""),
                _time(line["at"]),
                line["level"],
                line["logger"],
                line["message"],
            )
            for line in logs["lines"]
        ),
    )
    head = format_html_join(
        "",
        '<th scope="col">{}</th>',
        ((name,) for name in (_("Time"), _("Level"), _("Logger"), _("Message"))),
    )
    return format_html(
        '{}<div class="durable-scroll durable-lines"{}><table class="durable-rows">'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>",
        _left_out(logs["left_out"]),
        scroll_attributes((line["message"] for line in logs["lines"]), _("Log lines")),
        head,
        rows,
    )


def _time(text: str) -> SafeString:
    local = timezone.localtime(datetime.fromisoformat(text))
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        text,
        f"{local:%Y-%m-%d %H:%M:%S.%f %Z}",
        f"{local:%H:%M:%S.%f}"[:-3],
    )


def _left_out(count: int) -> SafeString:
    if not count:
        return SafeString("")
    note = ngettext(
        "%(count)s earlier line was left out.",
        "%(count)s earlier lines were left out.",
        count,
    ) % {"count": f"{count:,}"}
    return format_html('<p class="durable-quiet">{}</p>', note)
