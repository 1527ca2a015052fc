"""Tests of the names and words that readers of this package meet."""
