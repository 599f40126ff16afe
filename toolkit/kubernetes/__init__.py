"""Talks to a Kubernetes API server. Decides nothing: what to ask for is the pool's and the runners' to say."""
