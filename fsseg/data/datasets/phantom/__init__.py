"""The embedded dataset of synthetic abdominal scans. The same seed gives the same bits."""
