"""Tests of what lists and pages read."""
