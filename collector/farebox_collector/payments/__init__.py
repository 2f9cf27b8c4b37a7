"""Top-ups by Stripe: checkouts, what its webhook tells, automatic top-ups, fees, reconciliation."""
