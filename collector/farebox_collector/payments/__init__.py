"""Top-ups by Stripe: checkouts, webhook events, automatic top-ups, fees, reconciliation."""
