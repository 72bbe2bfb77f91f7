"""Evaluation: the ground truth meets predictions here, and is handed to nothing but oracles."""
