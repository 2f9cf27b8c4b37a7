"""Replay recorded HTTP exchanges through the SDK, one at a time: `farebox check-recordings`.

Bodies are neither stored nor printed: they go to the SDK's process over a pipe, which returns spans.
"""
