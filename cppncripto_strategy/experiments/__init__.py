"""E1 to E4 and the transfer table: arms, cells, comparisons, verdicts."""
