"""The sweeps of the tick."""
