"""Chaos: real services and a real PostgreSQL under load, killed and cut off at random, and the proof that nothing that
was answered is lost and nothing that was said counts twice. The suite runs a short piece of it, `make chaos` a long.
"""
