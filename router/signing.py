"""How whatever the router posts is signed, alerts and payment events alike: one header, one way to check it.

`X-Pointsman-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>]`: for each secret in force the HMAC-SHA256 of
`<t>.<body>`. A receiver takes what any of its secrets signed, and what is not older than it allows.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

SIGNATURE = "X-Pointsman-Signature"


def signature(secrets: Sequence[str], body: bytes, unix_s: int) -> str:
    """The header's value, under each of the secrets: while one replaces the other there are two."""
    signed = f"{unix_s}.".encode() + body
    digests = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={unix_s}", *(f"v1={digest}" for digest in digests)])
