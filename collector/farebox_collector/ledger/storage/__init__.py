"""The databases: engines, transactions, migrations, bulk inserts. Every difference between them is here."""
