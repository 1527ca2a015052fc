"""The statements of a run as PostgreSQL runs them: one prepared round trip each."""
