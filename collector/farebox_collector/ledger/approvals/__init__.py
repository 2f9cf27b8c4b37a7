"""Two-person approval: proposals, and the changes that they execute."""
