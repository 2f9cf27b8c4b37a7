"""Pricing, pure: the price book (`book`), model matching (`matching`), charge rules (`rules`), and their use (`price`).

`catalogue` converts published price lists to price versions. No I/O and no clock: the time whose prices apply is always
an argument.
"""
