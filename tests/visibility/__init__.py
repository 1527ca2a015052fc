"""Two tenants in one installation: neither sees anything of the other."""
