from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('durable_jobs', '0010_event_causes'),
    ]

    operations = [
        # In a migration of its own: a worker writes to both tables, runs first.
        migrations.AddField(
            model_name='run',
            name='depth',
            field=models.SmallIntegerField(db_default=0, default=0),
        ),
    ]
