"""Single modules, without an engine around them."""
