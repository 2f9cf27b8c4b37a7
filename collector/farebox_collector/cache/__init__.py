"""Tariffs and keys in memory, checked for changes every second."""
