"""Access: tenants, keys, links, people, sessions, and the audit log."""
