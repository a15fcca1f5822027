"""Arguments of one command each -> calls."""
