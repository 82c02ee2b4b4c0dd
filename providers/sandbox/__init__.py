"""Stand-in Stripe and Adyen servers with their own books, which can be broken on demand (design §9).

Start reading at `server.py` (the three ports and their thread), then `standin.py` (the way of one request) and
`webhooks.py` (the way of one notification). Only the wire formats are the vendors'; nothing here imports a vendor's
SDK.
"""
