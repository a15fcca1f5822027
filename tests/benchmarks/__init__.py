"""Measurements: `python -m tests.benchmarks` prints the tables; nothing here is a test."""
