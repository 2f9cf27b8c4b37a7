"""Reports: read-only questions to the books."""
