"""Admin pages of functions."""
