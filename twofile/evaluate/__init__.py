"""What a parameters file can do, measured: every figure with its n and its interval."""
