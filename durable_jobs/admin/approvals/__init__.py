"""The inbox of approvals."""
