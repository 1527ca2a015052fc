"""Schedules become rows that users make, beside those that the code declares."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models


def declare(apps: Any, schema_editor: Any) -> None:
    """Note that all the schedules there are come from the code."""
    rows = apps.get_model("durable_jobs", "Schedule").objects
    rows.using(schema_editor.connection.alias).update(
        declared=True, next_at=models.F("slot_at")
    )


def forget(apps: Any, schema_editor: Any) -> None:
    """Delete what the older code cannot hold."""
    rows = apps.get_model("durable_jobs", "Schedule").objects
    rows.using(schema_editor.connection.alias).filter(declared=False).delete()


class Migration(migrations.Migration):

    dependencies = [("durable_jobs", "0003_flow_control")]

    operations = [
        migrations.RemoveConstraint('schedule', 'durable_schedule_unique'),
        migrations.RemoveIndex('schedule', 'durable_schedule_next'),
        migrations.RenameField('schedule', 'next_at', 'slot_at'),
        migrations.AddField(
            model_name='schedule',
            name='catch_up',
            field=models.CharField(choices=[('skip', 'skip'), ('one', 'one'), ('all', 'all')], default='skip', max_length=4),
        ),
        migrations.AddField(
            model_name='schedule',
            name='created_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='data',
            field=models.TextField(null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='declared',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='schedule',
            name='held',
            field=models.JSONField(default=list),
        ),
        migrations.AddField(
            model_name='schedule',
            name='jitter',
            field=models.DurationField(null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='last_run',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='missing_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='name',
            field=models.CharField(blank=True, default='', max_length=255),
        ),
        migrations.AddField(
            model_name='schedule',
            name='next_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='overlap',
            field=models.CharField(choices=[('allow', 'allow'), ('skip', 'skip'), ('queue', 'queue')], default='allow', max_length=5),
        ),
        migrations.AddField(
            model_name='schedule',
            name='owner_model',
            field=models.CharField(blank=True, default='', max_length=201),
        ),
        migrations.AddField(
            model_name='schedule',
            name='owner_pk',
            field=models.CharField(blank=True, default='', max_length=255),
        ),
        migrations.AddField(
            model_name='schedule',
            name='paused_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='reason',
            field=models.TextField(blank=True, default=''),
        ),
        migrations.RunPython(declare, forget, elidable=True),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(models.F('next_at'), models.F('id'), name='durable_schedule_next'),
        ),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(models.F('owner_model'), models.F('owner_pk'), condition=models.Q(('owner_model', ''), _negated=True), name='durable_schedule_owner'),
        ),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(models.F('function'), condition=models.Q(('missing_at__isnull', False)), name='durable_schedule_missing'),
        ),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(models.F('function'), models.F('id'), name='durable_schedule_function'),
        ),
        migrations.AddConstraint(
            model_name='schedule',
            constraint=models.UniqueConstraint(condition=models.Q(('declared', True)), fields=('function', 'cron', 'tz'), name='durable_schedule_declared'),
        ),
    ]
