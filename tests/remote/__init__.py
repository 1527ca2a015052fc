"""Functions of remote apps: through their SDK, and of apps that misbehave."""
