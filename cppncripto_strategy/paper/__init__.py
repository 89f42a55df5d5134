"""Live paper trading: the session on disk, the engine, its recipe, its screen, its parity."""
