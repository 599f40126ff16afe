"""Compute that is checked: matrix products on every SM with one right answer, bit for bit."""
