"""The console: web pages for operators. Login, account, people and approvals."""
