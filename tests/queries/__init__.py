"""The queries of lists and pages."""
