"""Incidents: alerts that fired, with snapshots of the books."""
