"""The console: pages for people who run the product. Login, account, people, approvals, and the way to the others."""
