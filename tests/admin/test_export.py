"""Export of runs: all of the filter, in order, safe, and streamed."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs.admin.runs import export
from tests.admin.conftest import list_of, make_runs

pytestmark = pytest.mark.django_db

EXPORT = reverse("admin:durable_jobs_export")


def text(response):
    assert response.status_code == 200
    return b"".join(response.streaming_content).decode()


def rows(client, query="", form="csv"):
    found = text(client.get(f"{EXPORT}?format={form}{query}"))
    if form == "json":
        return json.loads(found)
    return list(csv.DictReader(io.StringIO(found, newline="")))


@pytest.mark.parametrize("form", ["csv", "json"])
def test_runs_of_the_filter_are_sent_the_newest_first(admin_client, monkeypatch, form):
    monkeypatch.setattr(export, "CHUNK_OF_PAYLOADS", 3)
    failed = make_runs(10, status="failed", version="1")
    make_runs(2)
    found = rows(admin_client, "&status=failed&version=1&period=day", form)
    assert [row["id"] for row in found] == [str(run.pk) for run in reversed(failed)]
    assert {row["status"] for row in found} == {"failed"}
    assert found[0]["queued_at"] == failed[-1].queued_at.isoformat()


def test_file_is_an_attachment_with_a_name(admin_client):
    for form, kind in (("csv", "text/csv"), ("json", "application/json")):
        response = admin_client.get(f"{EXPORT}?format={form}")
        named = f'attachment; filename="runs.{form}"'
        assert response["Content-Disposition"] == named
        assert response["Content-Type"].startswith(kind)
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response.streaming
        assert export.CAPPED not in response


def test_file_without_runs_is_exported(admin_client):
    assert rows(admin_client) == []
    assert rows(admin_client, form="json") == []


def test_payloads_need_their_permission(operator):
    make_runs(1, data={"card": "4711", "big": 10**20}, error={"type": "Oops"})
    seeing = operator("view_run", "view_payload", username="seeing")
    found = rows(seeing, form="json")[0]
    assert found["data"]["card"] == "4711"
    assert found["error"] == {"type": "Oops"}
    assert json.loads(rows(seeing)[0]["data"])["card"] == "4711"
    blind = operator("view_run", username="blind")
    for form in ("csv", "json"):
        found = text(blind.get(f"{EXPORT}?format={form}"))
        assert "4711" not in found
        assert "Oops" not in found
    probe = blind.get(f"{EXPORT}?format=csv&where=data.card=4711")
    assert probe.status_code == 400


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_cells_are_never_formulas(admin_client, begin):
    formula = f'{begin}cmd|" /C calc"!A0'
    make_runs(1, function=formula, key=formula, reason=formula, data=formula)
    row = rows(admin_client)[0]
    assert row["function"] == row["key"] == row["reason"] == f"'{formula}"
    assert all(not value.startswith(export._FORMULAS) for value in row.values())
    assert rows(admin_client, form="json")[0]["key"] == formula


def test_texts_of_all_kinds_are_exported(admin_client):
    odd = 'a"b,c\nd\r\n;ü \U0001f600'
    make_runs(1, reason=odd, data={"x": odd})
    for form in ("csv", "json"):
        assert rows(admin_client, form=form)[0]["reason"] == odd


def test_file_says_when_there_were_more(admin_client, monkeypatch):
    monkeypatch.setattr(export, "MOST", 5)
    make_runs(6)
    response = admin_client.get(f"{EXPORT}?format=json")
    assert response[export.CAPPED] == "5"
    assert 'filename="runs-first-5.json"' in response["Content-Disposition"]
    assert len(json.loads(text(response))) == 5


def test_rows_are_read_in_small_batches(operator, monkeypatch):
    monkeypatch.setattr(export, "CHUNK", 4)
    make_runs(10)
    client = operator("view_run")
    response = client.get(f"{EXPORT}?format=csv")
    pieces = iter(response.streaming_content)
    with CaptureQueriesContext(connection) as asked:
        for _ in range(3):
            next(pieces)
        assert len(asked) == 1
        assert "LIMIT 4" in asked[0]["sql"]
        assert '"data"' not in asked[0]["sql"]
        rest = list(pieces)
        assert len(asked) == 3
    assert len(rest) == 8


def test_invalid_filter_is_refused_as_text(admin_client):
    for query in ("", "?format=xml", "?format=csv&status=bad", "?format=csv&<b>=1"):
        response = admin_client.get(EXPORT + query)
        assert response.status_code == 400
        assert response["Content-Type"] == "text/plain"


def test_export_needs_the_permission_to_view_runs(client, operator):
    assert client.get(f"{EXPORT}?format=csv").status_code == 302
    other = operator("cancel_run", "view_event")
    assert other.get(f"{EXPORT}?format=csv").status_code == 403


def test_list_leads_to_the_export_of_its_filter(get):
    page = get(f"{list_of('run')}?status=failed&q=k+1")
    for form in ("csv", "json"):
        assert f"{EXPORT}?q=k+1&status=failed&format={form}" in page.links()


@pytest.mark.django_db(transaction=True)
def test_asynchronous_server_streams_too():
    make_runs(3)
    client = AsyncClient()
    client.force_login(User.objects.create_superuser("root"))

    async def fetch():
        response: Any = await client.get(f"{EXPORT}?format=json")
        return b"".join([piece async for piece in response.streaming_content])

    assert len(json.loads(async_to_sync(fetch)())) == 3
