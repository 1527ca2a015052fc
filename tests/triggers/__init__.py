"""Functions that start on changes of models."""
