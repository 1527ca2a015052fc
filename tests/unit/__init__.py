"""Tests of single modules, without an engine around them."""
