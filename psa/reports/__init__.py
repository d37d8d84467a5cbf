"""What is said: pure functions of the one frame of psa.collect, one file per noun of a report."""
