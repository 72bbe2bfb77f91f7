"""Training and calibration on supervoxels: nothing here has seen an organ's label, or imports what evaluates."""
