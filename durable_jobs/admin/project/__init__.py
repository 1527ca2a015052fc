"""Durable runs on the admin pages of your project."""
