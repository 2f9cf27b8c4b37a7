"""Usage: one record for each call, its charge, its corrections, and what waits for a price."""
