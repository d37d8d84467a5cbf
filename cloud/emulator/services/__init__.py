"""Prices, quotas, images and permissions: what an emulator answers beside training jobs."""
