"""Checks of a rack that users run in their own pipelines, with pytest and testinfra: they read, and change nothing."""
