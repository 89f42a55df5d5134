"""The coming day's volatility and range: day statistics, HAR-X, a ridge with block penalties."""
