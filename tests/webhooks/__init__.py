"""Webhook triggers: authentication, validation and effects."""
