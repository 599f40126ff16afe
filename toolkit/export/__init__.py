"""Results of a rack in the formats that others' tools read. Formats are pure; only `on_record` reads the ledger."""
