"""Raw scans to a dataset: an application on top of `fsseg.data`. Nothing of a run is here, and no torch."""
