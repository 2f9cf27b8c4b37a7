"""Recorded HTTP conversations, read one exchange at a time and replayed through the SDK: `farebox check-recordings`.

Nothing of an exchange's bodies is kept or shown: they go to the SDK's process over a pipe, and spans come back.
"""
