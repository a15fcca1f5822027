"""Many captures -> one table, and mean maps across layers, runs and sets."""
