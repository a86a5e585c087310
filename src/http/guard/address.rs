//! Classes of addresses: which are everybody's, and which only this machine or its network sees.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What kind of address it is (IANA special-purpose registries, RFC 6890 and successors).
///
/// IPv4 inside IPv6 (mapped, compatible, NAT64, 6to4) counts as that IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressClass {
    /// Reachable by everybody.
    Public,
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// RFC 1918, shared space of RFC 6598, unique local addresses of RFC 4193, old site-local.
    Private,
    /// 169.254.0.0/16, `fe80::/10`: most clouds' metadata services are here.
    LinkLocal,
    /// Metadata services of clouds that sit in otherwise ordinary ranges.
    CloudMetadata,
    /// 224.0.0.0/4, `ff00::/8`.
    Multicast,
    /// `0.0.0.0/8`, `::`: many systems connect to themselves.
    Unspecified,
    /// Documentation, benchmarking, discard, broadcast, tunnels and everything not yet given out.
    Reserved,
}

impl AddressClass {
    /// The class of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            // Alibaba, Azure, Oracle.
            [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Self::CloudMetadata,
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            [169, 254, ..] => Self::LinkLocal,
            [224..=239, ..] => Self::Multicast,
            [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [240..=255, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        if ip == Ipv6Addr::LOCALHOST {
            return Self::Loopback;
        }
        if ip == Ipv6Addr::UNSPECIFIED {
            return Self::Unspecified;
        }
        let v4 = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match ip.segments() {
            // An IPv4 address in it: mapped (RFC 4291 2.5.5.2), compatible (2.5.5.1), translated (RFC 7915), NAT64 (RFC 6052),
            // 6to4 (RFC 3056).
            [0, 0, 0, 0, 0, 0xffff | 0, high, low]
            | [0, 0, 0, 0, 0xffff, 0, high, low]
            | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
            | [0x2002, high, low, ..] => v4(high, low),
            // EC2.
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Self::CloudMetadata,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            // Local-use NAT64 (RFC 8215), unique local, site-local.
            [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0xff00..=0xffff, ..] => Self::Multicast,
            // Protocol assignments with Teredo and ORCHID, documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Self::Reserved,
            // Only 2000::/3 is given out.
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Reserved,
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::CloudMetadata => "cloud metadata",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_classes() {
        use AddressClass::{CloudMetadata, LinkLocal, Loopback, Multicast, Private, Public, Reserved, Unspecified};
        #[rustfmt::skip]
        let table: &[(AddressClass, &[&str])] = &[
            (Public, &[
                "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255",
                "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
                "223.255.255.255", "2600::1", "2001:200::", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::",
            ]),
            (Loopback, &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "::ffff:0:7f00:1"]),
            (Private, &[
                "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255", "100.64.0.0", "100.127.255.255",
                "fc00::", "fdff:ffff::", "fec0::1", "::ffff:10.0.0.1", "64:ff9b:1::1", "2002:a00:1::", "64:ff9b::c0a8:1",
            ]),
            (LinkLocal, &["169.254.0.0", "169.254.169.254", "169.254.255.255", "fe80::1", "febf::1", "::ffff:169.254.169.254", "::a9fe:a9fe"]),
            (CloudMetadata, &["100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "::ffff:168.63.129.16"]),
            (Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1", "ffff::"]),
            (Unspecified, &["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "::2"]),
            (Reserved, &[
                "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.0", "198.19.255.255", "198.51.100.1", "203.0.113.1", "240.0.0.0", "255.255.255.255",
                "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::", "1::",
            ]),
        ];
        for (class, addresses) in table {
            for address in *addresses {
                assert_eq!(AddressClass::of(address.parse().unwrap()), *class, "{address}");
            }
        }
    }
}
