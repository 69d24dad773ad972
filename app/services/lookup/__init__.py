"""Carrier lookups as they are made: claimed, asked within a budget, decided like any receipt."""
