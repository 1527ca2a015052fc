"""The progress of a run, for viewers without an account."""
