"""Usage: one record per call, its charge, its corrections, and the records that wait for a price."""
