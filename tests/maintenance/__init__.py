"""Tests of what the tick does."""
