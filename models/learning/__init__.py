"""How networks learn: training, walk-forward, drift."""
