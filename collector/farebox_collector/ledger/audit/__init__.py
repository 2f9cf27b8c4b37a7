"""The audit: recomputes the books and names every difference."""
