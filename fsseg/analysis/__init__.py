"""Finished runs: compared, tested, tabled, measured again. Draws nothing and makes no run directory of its own."""
