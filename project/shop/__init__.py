"""A small shop with the models of the demo, the tests and the playground."""
