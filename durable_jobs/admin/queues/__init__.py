"""The pages of limits, backlogs and pauses."""
