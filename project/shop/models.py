"""Tenants with their orders, and airports imported from uploaded files."""

from __future__ import annotations

from django.db import models

from durable_jobs import durable


class Tenant(models.Model):
    """A tenant of the shop."""

    name = models.CharField(max_length=100, unique=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """An order of a tenant."""

    class Status(models.TextChoices):
        """The states of an order."""

        NEW = "new"
        RESERVED = "reserved"
        PAID = "paid"
        SHIPPED = "shipped"
        CANCELLED = "cancelled"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="orders")
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.NEW)
    total = models.DecimalField(max_digits=12, decimal_places=2)
    note = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("pk",)
        permissions = (("settle_complaint", "Can settle complaints"),)

    def __str__(self) -> str:
        return f"order {self.pk}"


class Upload(models.Model):
    """An uploaded file of airports."""

    file = models.FileField(upload_to="uploads/")
    uploaded_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.file.name or ""

    def announce(self) -> str:
        """Send the event ``file/uploaded`` and return its id."""
        return durable.send("file/uploaded", {"upload_id": self.pk})


class Airport(models.Model):
    """An airport. The columns of an uploaded file have the names of these fields."""

    icao = models.CharField("ICAO code", max_length=4, primary_key=True)
    iata = models.CharField("IATA code", max_length=3, blank=True, db_index=True)
    name = models.CharField(max_length=200)
    city = models.CharField(max_length=100, blank=True)
    subd = models.CharField("subdivision", max_length=100, blank=True)
    country = models.CharField(max_length=2)
    elevation = models.FloatField(help_text="in feet")
    lat = models.FloatField("latitude")
    lon = models.FloatField("longitude")
    tz = models.CharField("time zone", max_length=64)
    lid = models.CharField("local identifier", max_length=10, blank=True)

    class Meta:
        ordering = ("icao",)

    def __str__(self) -> str:
        return f"{self.icao} {self.name}"


class ImportSummary(models.Model):
    """The result of one run of the import."""

    run_id = models.UUIDField(unique=True)
    upload = models.ForeignKey(
        Upload, models.SET_NULL, null=True, blank=True, related_name="summaries"
    )
    rows = models.PositiveIntegerField()
    rejected = models.PositiveIntegerField(default=0)
    finished_at = models.DateTimeField()

    class Meta:
        ordering = ("-finished_at",)
        verbose_name_plural = "import summaries"

    def __str__(self) -> str:
        return f"{self.rows} rows by run {self.run_id}"
