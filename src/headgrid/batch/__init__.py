"""Many captures -> many files: plan, run, resume, in processes or on a cluster."""
