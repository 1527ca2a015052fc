"""Flow control: which runs are promoted, and which wait or are skipped."""
