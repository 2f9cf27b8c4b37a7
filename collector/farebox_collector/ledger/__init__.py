"""The books. `journal` is the only writer of money, `statements` the only reader, `database` opens the transactions.

Double entry in two commodities: every transaction's legs sum to zero in USD and in CREDIT. The usage record holds the
detail of one call; a transaction is written once a commit batch, with one CREDIT leg a (wallet, event, rule) and one
USD leg a (provider, model). Balances and totals are projections, written in the same transaction as what they sum up,
and `audit` recomputes them.
"""
