"""Arguments -> calls -> exit codes: one module for each command."""
