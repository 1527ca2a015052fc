from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('durable_jobs', '0009_missing_functions'),
    ]

    operations = [
        migrations.AddField(
            model_name='event',
            name='depth',
            field=models.SmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='event',
            name='route_after',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='event',
            name='routing',
            field=models.JSONField(null=True),
        ),
    ]
