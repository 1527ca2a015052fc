"""The admin pages, requested as a browser does."""
