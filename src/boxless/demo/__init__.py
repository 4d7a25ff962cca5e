"""The synthetic demo dataset, and a run of the whole pipeline on it."""
