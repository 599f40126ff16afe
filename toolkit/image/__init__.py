"""Signed images of nodes: what they are made of, how they are made, and that nothing else is ever offered or booted."""
