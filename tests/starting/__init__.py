"""What starts runs: events and calls."""
