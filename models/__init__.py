"""The networks and how they learn: torch and numpy, no Backtrader."""
