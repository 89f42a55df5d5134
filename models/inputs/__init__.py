"""What the networks read: grid, features, session scalers."""
