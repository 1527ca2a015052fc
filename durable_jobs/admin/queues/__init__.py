"""Admin pages of queues, limits, backlogs and pauses."""
