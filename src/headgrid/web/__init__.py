"""Charts and surveys -> HTML: pages, the explorer, and what a notebook shows."""
