"""What an emulator answers beside training jobs: prices, quotas, images and permissions."""
