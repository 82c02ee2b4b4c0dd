"""The one error that every reader and writer of the ledger must expect."""


class LedgerUnavailableError(Exception):
    """The ledger cannot be read or written now."""
