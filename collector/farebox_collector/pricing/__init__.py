"""Pricing, pure: the price book (`book`), model matching (`matching`), charge rules (`rules`), and their use (`price`).

`catalogue` reads published price lists into price versions. Nothing here does I/O or asks for the time: the moment
whose prices apply is always an argument.
"""
