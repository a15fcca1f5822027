"""Arguments -> calls: one module for each command."""
