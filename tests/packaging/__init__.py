"""The package as users install it: a wheel in its own environment."""
