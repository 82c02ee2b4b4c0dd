"""The error that every reader and writer of the ledger must expect."""


class LedgerUnavailableError(Exception):
    """The ledger cannot be read or written now. What was to be written is not there."""


class CommitUnknownError(LedgerUnavailableError):
    """The ledger went away during a commit: what was to be written may be there, or not."""


class NotCommittedError(LedgerUnavailableError):
    """The ledger took a transaction back before its commit began: for sure, nothing of it is there."""
