"""Other people's tests, run where a node has them: their output is kept as it is, and read by the controller."""
