"""`rackproof serve`: web pages over the ledger. It reads: no node is asked, nothing is judged, nothing is changed."""
