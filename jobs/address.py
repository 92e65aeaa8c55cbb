"""Which IP addresses are public. Knows no names and opens nothing."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_REFUSED = (
    IPv6Network("64:ff9b:1::/48"),  # local-use NAT64, RFC 8215
    IPv6Network("fec0::/10"),  # deprecated site-local, RFC 3879
    IPv6Network("2001::/32"),  # Teredo: the inner address is obscured
    IPv6Network("5f00::/16"),  # segment routing, RFC 9602
)
_RELAY_6TO4 = (IPv4Address("192.88.99.0"), IPv4Address("192.88.99.255"))


def is_public(address: str) -> bool:
    """Whether an address (as `getaddrinfo` writes it) belongs to the public Internet. An IPv6 address that carries an
    IPv4 one (mapped, compatible, 6to4, NAT64) is as public as what it carries."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return _is_public_v4(ip)
    inner = _inner(ip)
    if inner is not None:
        return _is_public_v4(inner)
    special = ip.is_multicast or ip.is_reserved or any(ip in network for network in _REFUSED)
    return ip.is_global and not special


def _is_public_v4(ip: IPv4Address) -> bool:
    relay = _RELAY_6TO4[0] <= ip <= _RELAY_6TO4[1]
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not relay


def _inner(ip: IPv6Address) -> IPv4Address | None:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip in _NAT64 or ip in _COMPATIBLE:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return None
