"""Summaries of the books for people, such as the snapshot of an incident."""
