"""The books in memory: tariffs and keys, checked for changes a few times a second."""
