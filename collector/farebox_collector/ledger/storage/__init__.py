"""The databases: engines, transactions, migrations, bulk inserts. All differences between databases are here."""
