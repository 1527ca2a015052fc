from django.db import migrations, models

from durable_jobs.migrations._concurrently import AddIndexConcurrently


class Migration(migrations.Migration):

    # Its indexes are built while workers go on writing.
    atomic = False

    dependencies = [
        ('durable_jobs', '0005_control_room'),
    ]

    operations = [
        AddIndexConcurrently(
            model_name='step',
            index=models.Index(fields=['run'], name='durable_step_run'),
        ),
        AddIndexConcurrently(
            model_name='step',
            index=models.Index(condition=models.Q(('status__in', ['invoking', 'running', 'scheduled', 'sleeping', 'waiting'])), fields=['run', 'key'], name='durable_step_open'),
        ),
        migrations.RemoveConstraint(
            model_name='step',
            name='durable_step_key',
        ),
    ]
