"""Clients of AWS services, their settings, prices and request rules; nothing here knows of sweeps."""
