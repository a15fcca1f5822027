"""Captures -> long-form DataFrames and statistics; the one place that rounds."""
