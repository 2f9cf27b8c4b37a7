"""What people and programs see of the books: the HTTP API. It reads through `ledger.statements`."""
