"""Insight: what the books say about a moment, put together for people."""
