"""Raw scans become a dataset: one module per layout, and an engine that runs them case by case."""
