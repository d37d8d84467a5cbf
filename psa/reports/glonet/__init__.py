"""The report of the depth study."""
