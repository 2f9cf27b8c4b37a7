"""Prepaid credits: deposits, movements, lots, holds, limits, policies and budgets."""
