"""Functions that an app elsewhere serves: by its SDK, and by apps that misbehave."""
