"""Admin pages of approvals."""
