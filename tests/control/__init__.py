"""Tests of how runs end, and how people steer them."""
