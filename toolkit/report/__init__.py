"""Renders what the ledger and the judge say. Decides nothing."""
