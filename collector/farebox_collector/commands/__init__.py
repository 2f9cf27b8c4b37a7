"""The commands of `farebox`, one file per group; `terminal` holds what they share."""
