"""PostgreSQL statements for the hot paths, one module per statement.

Each operation is a single prepared statement, because the round trip and the commit
cost more than the work. Each has a portable twin beside its caller that passes the same
tests.
"""
