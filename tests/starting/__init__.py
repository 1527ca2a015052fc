"""Tests of what starts runs: events and calls."""
