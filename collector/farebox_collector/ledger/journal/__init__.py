"""The journal: transactions and postings, their roll-ups, and the checks that verify them."""
