"""Runs on the node: standard library and pynvml only. Measures and records; never judges."""

VERSION = "0.1.0"
