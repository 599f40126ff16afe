"""Append-only evidence and state. The only package that knows SQL."""
