"""What projects declare: frozen values, importable before the app registry is ready."""

from __future__ import annotations
