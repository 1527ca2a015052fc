"""The pages of functions."""
