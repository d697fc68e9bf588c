"""Ray: what a run asks of it, and what it tells."""
