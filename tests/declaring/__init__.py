"""Tests of what is declared: functions, triggers, settings and their refusals."""
