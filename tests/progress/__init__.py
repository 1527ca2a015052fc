"""How far a run is, for people without an account."""
