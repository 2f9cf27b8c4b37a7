"""Payments: packs, top-ups, events of the payment provider, fees, refunds and disputes."""
