from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('durable_jobs', '0011_run_depth'),
    ]

    operations = [
        migrations.CreateModel(
            name='SweepError',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('kind', models.CharField(max_length=20)),
                ('item', models.CharField(max_length=255)),
                ('run_id', models.UUIDField(null=True)),
                ('message', models.TextField()),
                ('count', models.PositiveIntegerField(default=1)),
                ('since', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
                ('until', models.DateTimeField()),
            ],
            options={
                'verbose_name': 'sweep error',
                'verbose_name_plural': 'sweep errors',
                'indexes': [models.Index(models.F('until'), name='durable_sweep_error_until'), models.Index(models.F('run_id'), condition=models.Q(('run_id__isnull', False)), name='durable_sweep_error_run')],
                'constraints': [models.UniqueConstraint(fields=('kind', 'item'), name='durable_sweep_error_unique')],
            },
        ),
    ]
