"""Admission: limits on connections, request rates and bytes in progress."""
