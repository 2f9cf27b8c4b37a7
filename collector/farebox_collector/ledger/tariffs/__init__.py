"""Prices, charge rules and exchange rates, each version with the moment it takes effect."""
