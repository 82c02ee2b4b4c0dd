"""`/metrics`: what a process counts, what is read from the ledger at a scrape, right across processes and restarts.

    catalogue   every name, with its labels, buckets and meaning: read first
    cells       one process's figures, in files that its death does not take away
    lives       the directory of those files: who lives, and what the dead have left is kept
    instruments counters, histograms and gauges over cells
    observers   the small callables that the router's parts are given
    sampling    what a process looks up about itself, every second
    ledger_state   what only the ledger knows, read at a scrape
    page        all of it, as Prometheus reads it

The parts that are counted know nothing of this package: they are given callables (`router.app.core`).
"""
