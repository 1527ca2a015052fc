"""Tests of the pages in docs/how-to/flow-control."""
