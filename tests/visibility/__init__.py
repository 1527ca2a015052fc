"""Two tenants in one installation: neither sees data of the other."""
