"""A double of Stripe on loopback: real HTTP, real signatures, the part of the API that top-ups use.

For tests, for the demo and for trying things out. It keeps everything in memory and knows no cards but test cards.
"""
