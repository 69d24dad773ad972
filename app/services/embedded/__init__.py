"""The PostgreSQL that we bring along: where it lives, what it is made of, what watches it. `database.py` runs it."""
