"""Declarations: functions, triggers, settings and their refusals."""
