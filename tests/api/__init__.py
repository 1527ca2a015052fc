"""The HTTP API, as programs and people use it."""
