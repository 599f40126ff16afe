"""The report of a rack as one HTML file: what a ledger has, gathered, laid out and rendered. Nothing here judges."""
