"""Clients of AWS services, their settings, prices and request validation; independent of sweeps."""
