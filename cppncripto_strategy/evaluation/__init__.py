"""How a run is judged: ratios and hits, their uncertainty, and the number of trials behind them."""
