"""What is done to a GPU's memory, and what came back. One GPU, one process; no thresholds."""
