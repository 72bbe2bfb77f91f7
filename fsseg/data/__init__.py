"""Scans, their folds and their regions, before they are tensors. Nothing here loads torch when it is imported."""
