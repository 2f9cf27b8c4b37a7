"""The vocabulary: records, verdicts, money, moments, units, credentials. No I/O."""
