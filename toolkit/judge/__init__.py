"""Judges evidence by gates. Pure: no clock, no file, no network; the same input gives the same verdict."""
