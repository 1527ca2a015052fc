"""Actions of users on runs."""
