"""A host app for tests: functions that write down what they did, and can be held."""

from __future__ import annotations
