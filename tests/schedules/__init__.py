"""Crons and schedules."""
