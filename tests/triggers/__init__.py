"""Tests of functions that start on changes of models."""
