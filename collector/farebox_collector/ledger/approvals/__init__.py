"""Two-person approval: what waits for a second person, and how it is done."""
