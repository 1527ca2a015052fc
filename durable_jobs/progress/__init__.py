"""How far a run is, for people without an account: who has the token may see it."""
