"""The journal: transactions and postings, their roll-ups, and what is compared with them."""
