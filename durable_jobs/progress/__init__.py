"""The progress of a run for visitors without an account, by signed token."""
