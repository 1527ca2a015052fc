"""A small shop: the models that the demo, the tests and the playground work on."""
