"""Tests of the pages in docs/explanation."""
