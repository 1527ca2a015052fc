"""How PostgreSQL stores the hot tables. Other databases need none of it."""

from __future__ import annotations

from typing import Any

from django.db import migrations

# Leases are renewed in columns without an index: with room in its page, such an update
# touches no index at all. And small tables that change all the time want to be cleaned
# by the count of dead rows, not by a share of the history beside them.
RUN = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02"
HOT = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000"


def tune(apps: Any, schema_editor: Any) -> None:
    """Set storage parameters."""
    _alter(schema_editor, f"SET ({RUN})", f"SET ({HOT})")


def untune(apps: Any, schema_editor: Any) -> None:
    """Put the parameters back to their defaults."""
    names = "fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold"
    _alter(schema_editor, f"RESET ({names})", f"RESET ({names})")


def _alter(schema_editor: Any, run: str, wait: str) -> None:
    if schema_editor.connection.vendor != "postgresql":
        return
    schema_editor.execute(f"ALTER TABLE durable_jobs_run {run}")
    schema_editor.execute(f"ALTER TABLE durable_jobs_wait {wait}")


class Migration(migrations.Migration):

    dependencies = [("durable_jobs", "0001_initial")]

    operations = [migrations.RunPython(tune, untune, elidable=False)]
