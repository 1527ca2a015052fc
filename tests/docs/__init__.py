"""What the documentation says is executed, and compared with the code."""
