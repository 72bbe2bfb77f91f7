"""New scans, segmented by a finished run: it reads run directories and exports, and touches no ground truth of a query."""
