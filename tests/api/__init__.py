"""The HTTP API, for programs and users."""
