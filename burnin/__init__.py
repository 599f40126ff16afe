"""Runs on the node: standard library and pynvml only. Measures and records; never judges."""
