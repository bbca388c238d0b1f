"""Records in; tidy tables, Markdown, CSV and figures out. Nothing in here imports JAX."""
