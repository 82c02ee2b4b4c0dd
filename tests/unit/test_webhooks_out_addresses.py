"""No webhook reaches an address inside, however it is written; addresses of strangers are let through."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.webhooks_out_addresses import EVERYWHERE, networks, refusal
from router.webhooks_out_post import Poster
from router.webhooks_out_urls import BadUrlError, target_of

INSIDE = (
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "shared"),
    ("100.100.100.200", "shared"),
    ("169.254.169.254", "link_local"),
    ("168.63.129.16", "metadata"),
    ("192.0.0.192", "reserved"),
    ("198.18.0.1", "benchmarking"),
    ("203.0.113.7", "documentation"),
    ("224.0.0.1", "multicast"),
    ("255.255.255.255", "reserved"),
    ("::1", "loopback"),
    ("::", "unspecified"),
    ("::7f00:1", "reserved"),
    ("::ffff:127.0.0.1", "ipv4_mapped"),
    ("::ffff:8.8.8.8", "ipv4_mapped"),
    ("64:ff9b::7f00:1", "nat64"),
    ("64:ff9b:1::a00:1", "nat64"),
    ("2002:7f00:1::", "6to4"),
    ("2001:0:7f00:1::", "reserved"),
    ("2001:db8::1", "documentation"),
    ("fe80::1", "link_local"),
    ("fe80::1%eth0", "link_local"),
    ("fec0::1", "private"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "private"),
    ("ff02::1", "multicast"),
    ("4000::1", "reserved"),
)
OUTSIDE = (
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "169.253.255.255",
    "2606:4700:4700::1111",
    "2a00:1450::1",
)
INSIDE_V4 = [address for address, _ in INSIDE if "." in address and ":" not in address]


@pytest.mark.parametrize(("address", "word"), INSIDE)
def test_an_address_inside_is_refused_with_its_kind(address: str, word: str) -> None:
    """Unless a setting lets all in."""
    assert refusal(address) == word
    assert refusal(address, EVERYWHERE) is None


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_outside_is_let_through(address: str) -> None:
    """Neighbours of what is refused among them."""
    assert refusal(address) is None


@given(st.ip_addresses())
def test_nothing_that_python_knows_to_be_special_is_let_through(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Two tables made by different people: ours refuses at least what the standard library's does."""
    special = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    if special or address.is_reserved or address.is_unspecified:
        # Python 3.11 takes more of 192.0.0.0/24 for private than later ones; ours refuses all of it.
        assert refusal(str(address)) is not None


def _written(address: str) -> list[str]:
    """Ways to write an IPv4 address that some resolver takes."""
    number = int(ipaddress.IPv4Address(address))
    first, second, third, fourth = address.split(".")
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    return [
        address,
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(f"0{int(part):o}" for part in address.split(".")),
        ".".join(hex(int(part)) for part in address.split(".")),
        f"{first}.{number & 0xFFFFFF}",
        f"{first}.{second}.{number & 0xFFFF}",
        f"{first}.{second}.{third}.{hex(int(fourth))}",
        f"{address}.",
        f"[{mapped}]",
        f"[{mapped.exploded}]",
        f"[::{address}]",
        f"[64:ff9b::{address}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::]",
        f"user@{address}",
        f"8.8.8.8@{address}",
        f"{address}#@8.8.8.8",
        f"{address}\\@8.8.8.8",
        f"8.8.8.8\\@{address}",
        f"{address}%00.example",
        "".join(chr(ord("①") + int(each) - 1) if each in "123456789" else each for each in address),
        address.replace(".", "。"),
    ]


WRITTEN = len(_written("127.0.0.1"))
VALUES_V4 = st.sampled_from(INSIDE_V4) | st.ip_addresses(network="10.0.0.0/8").map(str)


@given(VALUES_V4, st.integers(0, WRITTEN - 1), st.sampled_from(["", ":443", ":8443", ":80"]))
@example("127.0.0.1", 0, "")
def test_however_an_address_inside_is_written_nothing_is_connected_to(address: str, way: int, port: str) -> None:
    """Where the URL is not refused, what the machine's own resolver makes of the host is."""
    url = f"https://{_written(address)[way]}{port}/in"

    def resolve(host: str, at: int) -> list[object]:
        # Numbers in any notation are read as the machine does; names would be asked for, and are not.
        return list(socket.getaddrinfo(host, at, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))

    posted = Poster(total_s=0.5, resolve=resolve).post(url, {}, b"{}")
    assert posted.status is None
    assert posted.reason in ("url_refused", "dns") or posted.reason.endswith("_address")  # type: ignore[union-attr]  # None fails


def test_settings_let_single_networks_in() -> None:
    """As `10.1.0.0/16` does, and no more than that."""
    allowed = networks("10.1.0.0/16, fd00:1::/32")
    assert [refusal(each, allowed) for each in ("10.1.2.3", "10.2.0.1", "fd00:1::5", "127.0.0.1")] == [
        None,
        "private",
        None,
        "loopback",
    ]
    assert (networks("all"), networks("none"), networks("")) == (EVERYWHERE, (), ())
    with pytest.raises(ValueError, match="does not appear"):
        networks("10.1.0.0/16,intern")


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://shop.example", "shop.example", 443, "/", "shop.example"),
        ("https://SHOP.example:8443/in?a=1&b=2", "shop.example", 8443, "/in?a=1&b=2", "shop.example:8443"),
        ("https://[2606:4700:4700::1111]/x", "2606:4700:4700::1111", 443, "/x", "[2606:4700:4700::1111]"),
        ("https://xn--bcher-kva.example./", "xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example"),
        ("https://8.8.8.8:443/a;b", "8.8.8.8", 443, "/a;b", "8.8.8.8"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, path: str, authority: str) -> None:
    """Into what is resolved, connected to, asked for, and named."""
    found = target_of(url, allow_http=False)
    assert (found.host, found.port, found.path, found.authority) == (host, port, path, authority)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/",
        "ftp://shop.example/",
        "//shop.example/",
        "https:///in",
        "https://",
        "https://a b.example/",
        "https://shop.example/\r\nX-Evil: 1",
        "https://user:pass@shop.example/",
        "https://shop.example/#part",
        "https://shop.example:0/",
        "https://shop.example:65536/",
        "https://shop.example:x/",
        "https://[::1/",
        "https://[shop.example]/",
        "https://bücher.example/",
        "https://127.0.0.1/",
        "https://[::ffff:8.8.8.8]/",
        "https://-a.example/",
        "https://a..example/",
        "https://shop.example/" + "a" * 1000,
        "",
    ],
)
def test_what_cannot_be_an_endpoints_url_is_refused_without_repeating_it(url: str) -> None:
    """The message says why."""
    with pytest.raises(BadUrlError) as caught:
        target_of(url, allow_http=False)
    assert url[8:] not in str(caught.value) or len(url) <= 8


def test_settings_allow_plain_http() -> None:
    """And then only http beside https."""
    assert target_of("http://shop.example:8080/in", allow_http=True).port == 8080
    with pytest.raises(BadUrlError):
        target_of("ftp://shop.example/", allow_http=True)
