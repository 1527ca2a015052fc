"""Webhook triggers: who may post, what is accepted, and what comes of it."""
