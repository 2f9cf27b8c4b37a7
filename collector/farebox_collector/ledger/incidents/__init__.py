"""Incidents: what an alert opened, and the figures of that moment."""
