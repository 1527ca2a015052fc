"""Admin pages of runs and steps."""
