"""The functions of the demo project, and the checks of the demo."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from durable_jobs.models import Run
from project.demo import verification
from project.shop.models import Airport, ImportSummary, Order, Tenant, Upload

pytestmark = pytest.mark.django_db

HEAD = "icao,iata,name,city,subd,country,elevation,lat,lon,tz,lid\n"
LINES = (
    "LFPG,CDG,Charles de Gaulle,Paris,Ile-de-France,FR,392,49.0,2.55,Europe/Paris,\n"
    "EDDB,BER,Brandenburg,Berlin,Brandenburg,DE,157,52.4,13.5,Europe/Berlin,\n"
)


@pytest.fixture
def order():
    """Return an order."""
    return Order.objects.create(tenant=Tenant.objects.create(name="T"), total=40)


@pytest.fixture
def checkout(durable_kit, order):
    """Check the order out, and run until idle."""
    durable_kit.send("shop/checkout.completed", {"order_id": order.pk, "total": 40})
    durable_kit.run_until_idle()
    order.refresh_from_db()
    assert order.status == Order.Status.RESERVED


def test_order_that_is_paid_is_shipped(durable_kit, order, checkout):
    durable_kit.send("shop/payment.received", {"order_id": order.pk + 1})
    durable_kit.send("shop/payment.received", {"order_id": order.pk})
    durable_kit.run_until_idle()
    order.refresh_from_db()
    assert order.status == Order.Status.PAID
    durable_kit.advance("1h")
    order.refresh_from_db()
    assert order.status == Order.Status.SHIPPED
    assert Run.objects.get().result() == {"shipped": True}


def test_unpaid_order_is_cancelled(durable_kit, order, checkout):
    durable_kit.advance("3d")
    order.refresh_from_db()
    assert order.status == Order.Status.CANCELLED


def test_order_that_is_revoked_is_cancelled(durable_kit, order, checkout):
    durable_kit.send("shop/checkout.revoked", {"order_id": order.pk})
    durable_kit.run_until_idle()
    order.refresh_from_db()
    assert order.status == Order.Status.CANCELLED
    assert Run.objects.get(function="shop.fulfil_order").status == "cancelled"


def test_empty_order_starts_nothing(durable_kit, order):
    durable_kit.send("shop/checkout.completed", {"order_id": order.pk, "total": 0})
    assert not Run.objects.exists()


@pytest.fixture
def complain(durable_kit, order):
    """Return a function that requests a refund and returns its run."""

    def complaining(amount):
        data = {"order": order, "amount": amount}
        event_id = durable_kit.send("shop/complaint.received", data)
        durable_kit.run_until_idle()
        return Run.objects.get(event_id=event_id)

    return complaining


def test_little_is_given_back_at_once(complain, order):
    assert complain("19.50").result() == {"back": Decimal("19.50")}
    order.refresh_from_db()
    assert order.note == "19.50 given back"


def test_large_refund_asks_a_manager(durable_kit, complain, order):
    run = complain("40")
    durable_kit.approve("manager", {"amount": "35", "why": "late"})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"back": Decimal(35)}


def test_manager_may_refuse(durable_kit, complain, order):
    complain("40")
    durable_kit.reject("manager", "it was a gift")
    durable_kit.run_until_idle()
    order.refresh_from_db()
    assert order.note == "refused: it was a gift"


def test_undecided_refund_is_partial(durable_kit, complain, order):
    complain("40")
    durable_kit.advance("7d")
    order.refresh_from_db()
    assert order.note == "20 given back"


@pytest.fixture
def imported(durable_kit, settings, tmp_path):
    """Return a function that imports a text and returns the import's run."""
    settings.MEDIA_ROOT = tmp_path

    def importing(text):
        upload = Upload.objects.create(file=ContentFile(text.encode(), "airports.csv"))
        event_id = upload.announce()
        durable_kit.advance("2s")
        return Run.objects.get(event_id=event_id)

    return importing


def test_file_is_imported_and_summarised(imported):
    run = imported(HEAD + LINES)
    assert run.result() == {"rows": 2, "rejected": 0}
    assert Airport.objects.get(pk="LFPG").city == "Paris"
    summary = ImportSummary.objects.get()
    assert (summary.run_id, summary.rows, summary.rejected) == (run.pk, 2, 0)


def test_lines_that_are_no_airports_are_left_out(imported):
    run = imported(HEAD + LINES + "X,,,,,,high,1,2,UTC,\n")
    assert run.result() == {"rows": 2, "rejected": 1}


def test_corrected_file_can_be_imported_again(imported):
    imported(HEAD + LINES)
    imported(HEAD + LINES.replace("Berlin,Brandenburg,DE", "Schoenefeld,B,DE"))
    assert Airport.objects.count() == 2
    assert Airport.objects.get(pk="EDDB").city == "Schoenefeld"


def test_table_differences_are_found(imported, tmp_path: Path):
    file = tmp_path / "wanted.csv"
    file.write_text(HEAD + LINES)
    imported(HEAD + LINES)
    assert not list(verification.table_differences(file))
    Airport.objects.filter(pk="EDDB").update(name="Tegel")
    missing, extra = verification.table_differences(file)
    assert missing.startswith("missing")
    assert extra.startswith("extra")
    Airport.objects.all().delete()
    assert len(list(verification.table_differences(file))) == 2


@pytest.mark.parametrize(
    ("chunk_log", "problems"),
    [
        ("1 validate 0\n2 write 0\n", []),
        ("1 validate 0\n2 validate 0\n", ["validated again by [1, 2]"]),
        ("2 write 0\n", ["never validated", "validated again by []"]),
        ("1 validate 0\n2 write 0\n2 write 0\n", ["executed write 0 2 times"]),
    ],
)
def test_repeated_work_is_found(imported, tmp_path: Path, chunk_log, problems):
    run = imported(HEAD + LINES)
    file = tmp_path / "chunks.log"
    file.write_text(chunk_log)
    found = list(verification.repeated_work(file, run, recorded={0}, killed_pid=1))
    assert len(found) == len(problems)
    assert all(part in text for part, text in zip(problems, found, strict=True))


def test_unrecorded_work_may_be_repeated(imported, tmp_path: Path):
    run = imported(HEAD + LINES)
    file = tmp_path / "chunks.log"
    file.write_text("1 validate 0\n2 validate 0\n")
    assert not list(verification.repeated_work(file, run, recorded=set(), killed_pid=1))
    assert verification.revalidated_count(file, killed_pid=1) == 1
