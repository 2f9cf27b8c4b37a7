"""A double of Stripe on loopback: real HTTP, real signatures, and the part of the API that top-ups use.

For tests, the demo and trials. It keeps everything in memory and knows only test cards.
"""
