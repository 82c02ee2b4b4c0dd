"""The providers' settlement files beside the ledger: what they agree on, and what they do not."""
