"""A second engine over a run: orders derived again from its signals, executed by vectorbt.

    moments      candles and signals in the order in which an account saw them
    terms        an account's costs, the strategy's rules, the exchange's rules, in exact numbers
    rebuild      orders from signals: a second writing of the strategy's and the broker's rules
    portfolio    those orders executed by vectorbt: cash, positions, fees, equity, round trips
    differences  what is on record beside what the two make of it, the first difference named
    record       one account: from its record to its differences
    run          the accounts of a run's folder
    page         vectorbt.html: both accounts side by side, vectorbt's own statistics and trades

Nothing here imports the strategy, the broker, the ledger or the tables whose work is checked.
"""
