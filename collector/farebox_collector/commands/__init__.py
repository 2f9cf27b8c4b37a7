"""The groups of the command `farebox`, one file each, and what they share (`terminal`)."""
