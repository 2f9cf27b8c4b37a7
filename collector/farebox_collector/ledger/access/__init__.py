"""Access: people, their sessions, approvals, and the log of what everyone did."""
