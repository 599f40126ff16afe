"""Collectives of one node: nccl-tests started, watched and read. No thresholds."""
