"""The admin's pages, asked for as a browser does."""
