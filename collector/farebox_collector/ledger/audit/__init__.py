"""The audit: recompute the books and report every difference."""
