"""Turn bytes into priced batches: decode, read in a separate process, commit in groups."""
