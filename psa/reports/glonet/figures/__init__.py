"""The figures of the depth study."""
