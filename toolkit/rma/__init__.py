"""One archive of what is known of a failed node, for its vendor. Reads the ledger; touches no machine."""
