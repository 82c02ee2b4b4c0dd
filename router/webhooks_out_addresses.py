"""Which addresses a webhook endpoint may have: public ones, else a merchant could have the router knock inside.

Judged is the address that is about to be connected to, never a name or the way an address is written. Sources: the
IANA special-purpose registries for IPv4 and IPv6 (RFC 6890), read in November 2026, and what clouds serve their
machines' credentials at. `ipaddress.is_global` is not used: it has changed with Python's patch releases.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

EVERYWHERE: tuple[Network, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))

_REFUSED_V4 = {
    "0.0.0.0/8": "unspecified",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared",  # carriers' NAT; 100.100.100.200 is Alibaba's metadata
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "metadata",  # Azure's, on a public address
    "169.254.0.0/16": "link_local",  # 169.254.169.254 is most clouds' metadata
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",  # 192.0.0.192 is Oracle's metadata
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "reserved",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
_REFUSED_V6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::ffff:0:0/96": "ipv4_mapped",
    "64:ff9b::/96": "nat64",
    "64:ff9b:1::/48": "nat64",
    "2001::/23": "reserved",  # Teredo among them, which embeds an IPv4 address
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",  # embeds an IPv4 address
    "3fff::/20": "documentation",
    "fc00::/7": "private",  # fd00:ec2::254 is Amazon's metadata
    "fe80::/10": "link_local",
    "fec0::/10": "private",
    "ff00::/8": "multicast",
}
_V4 = tuple((ipaddress.IPv4Network(network), word) for network, word in _REFUSED_V4.items())
_V6 = tuple((ipaddress.IPv6Network(network), word) for network, word in _REFUSED_V6.items())
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is given out of IPv6; what lies outside of it is special, or is yet to be defined."""


def networks(value: str) -> tuple[Network, ...]:
    """`all`, or networks and addresses separated by commas. Raises ValueError."""
    if value.strip().lower() in ("all", "true", "1"):
        return EVERYWHERE
    if value.strip().lower() in ("", "none", "false", "0"):
        return ()
    return tuple(ipaddress.ip_network(each.strip()) for each in value.split(","))


def refusal(address: str, allowed: Sequence[Network] = ()) -> str | None:
    """Why no endpoint may be at this address, as a word; None where it may. Raises ValueError for no address.

    `allowed` are networks that a setting lets in; an IPv4-mapped address is let in by an IPv6 network only.
    """
    found = ipaddress.ip_address(address.partition("%")[0])  # a zone says which link, not what kind of address
    if any(found in network for network in allowed):
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return next((word for network, word in _V4 if found in network), None)
    word = next((word for network, word in _V6 if found in network), None)
    return word or (None if found in _GLOBAL_UNICAST else "reserved")
