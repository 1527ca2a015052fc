"""Flow control: what it lets through, and what it keeps or skips."""
