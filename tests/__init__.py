"""The tests of durable_jobs."""
