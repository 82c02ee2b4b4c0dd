"""A key's rate, a merchant's quota from its own past, its share of each provider's places."""
