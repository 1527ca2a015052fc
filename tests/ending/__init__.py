"""How runs end, and how users pause, cancel, redrive and rerun them."""
