"""The pages of runs and their steps."""
