//! How a guest is to get its address: the form in files, and as `--add network:…` writes it.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form;
use super::pairs::Pairs;
use super::schema::When;
use crate::error::{Error, Result};

/// What may stand behind the address, as the command line writes it.
const KEYS: [&str; 3] = ["gateway", "dns", "interface"];
/// Uses of it, for errors.
const EXAMPLE: &str = "for example: --add network:dhcp, or --add network:192.0.2.10/24:gateway=192.0.2.1:dns=192.0.2.53:interface=eth0";
/// The address of whoever asks for one.
pub const DHCP: &str = "dhcp";
/// The longest name of an interface: IFNAMSIZ of linux/if.h, less the NUL.
const INTERFACE_MAX: usize = 15;

/// Set up an ethernet interface, in the way of the guest's own network service, in place of what it had for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The interface; when left out, the guest's only one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_interface")]
    pub interface: Option<String>,
    /// `dhcp`, or an address with the length of its prefix, such as 192.0.2.10/24.
    #[serde(deserialize_with = "form::address")]
    pub address: String,
    /// Where packets go that are for other networks.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_ip")]
    pub gateway: Option<String>,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::ips")]
    pub dns: Vec<String>,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

impl Network {
    /// Reads `dhcp` or `ADDRESS/PREFIX`, then `[:KEY=VALUE…]`.
    ///
    /// # Errors
    /// A usage error with an example.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text).map_err(|what| {
            Error::usage(format!("--add network:dhcp|ADDRESS/PREFIX[:KEY=VALUE…]: {what}")).hint(EXAMPLE)
        })
    }

    /// Reads a list of them: the value of a parameter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let networks: Vec<Self> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (index, network) in networks.iter().enumerate() {
            network.check()?;
            if networks.len() > 1 && network.interface.is_none() {
                return Err("of several, each needs its interface".into());
            }
            if networks[..index].iter().any(|other| other.interface == network.interface) {
                return Err("an interface is set up twice".into());
            }
        }
        Ok(networks)
    }

    /// The fixed address with the length of its prefix; none with DHCP.
    pub fn fixed(&self) -> Option<(IpAddr, u8)> {
        prefixed(&self.address)
    }

    /// Checks what the values are together.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let gateway: Option<IpAddr> = self.gateway.as_deref().and_then(|text| text.parse().ok());
        let Some((address, prefix)) = self.fixed() else {
            return match gateway {
                Some(_) => Err("with dhcp the gateway comes from there as well: leave it out".into()),
                None => Ok(()),
            };
        };
        let near = |gateway: IpAddr| match (address, gateway) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                let differ = u32::from(one) ^ u32::from(other);
                prefix == 32 || differ.checked_shr(32 - u32::from(prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                let differ = u128::from(one) ^ u128::from(other);
                let link_local = other.segments()[0] & 0xffc0 == 0xfe80;
                link_local || prefix == 128 || differ.checked_shr(128 - u32::from(prefix)).unwrap_or(0) == 0
            }
            _ => false,
        };
        if let Some(gateway) = gateway.filter(|gateway| !near(*gateway) || *gateway == address) {
            return Err(format!(
                "the gateway {gateway} is no other machine of the network of {}",
                self.address
            ));
        }
        let old = |server: &&String| server.parse().is_ok_and(|server: IpAddr| server.is_ipv4());
        match self.dns.iter().find(old) {
            Some(server) if address.is_ipv6() => {
                Err(format!("the name server {server} cannot be reached from an IPv6 address"))
            }
            _ => Ok(()),
        }
    }
}

fn parse(text: &str) -> Result<Network, String> {
    let pairs = Pairs::parse(text, &KEYS)?;
    check_address(pairs.head)?;
    let interface = pairs.get("interface").map(str::to_owned);
    interface.iter().try_for_each(|name| check_interface(name))?;
    let (gateway, dns) = (pairs.get("gateway").map(str::to_owned), pairs.list("dns"));
    gateway.iter().chain(&dns).try_for_each(|text| check_ip(text))?;
    let network = Network { interface, address: pairs.head.to_owned(), gateway, dns, when: When::default() };
    network.check().map(|()| network)
}

fn prefixed(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let plain = prefix.bytes().all(|digit| digit.is_ascii_digit());
    let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let host = !address.is_unspecified() && !address.is_loopback() && !address.is_multicast();
    (plain && host && (1..=longest).contains(&prefix)).then_some((address, prefix))
}

/// `dhcp`, or an address that a machine may have, with the length of its prefix.
pub(super) fn check_address(text: &str) -> Result<(), String> {
    if text == DHCP || prefixed(text).is_some() {
        return Ok(());
    }
    Err(format!("{text:?} is neither dhcp nor an address with its prefix, such as 192.0.2.10/24"))
}

/// An address alone.
pub(super) fn check_ip(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>().map(drop).map_err(|_| format!("{text:?} is no IP address"))
}

/// A name that Linux takes for an interface, and that means nothing in any of the files where it is written.
pub(super) fn check_interface(name: &str) -> Result<(), String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good = (1..=INTERFACE_MAX).contains(&name.len())
        && name.bytes().all(known)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name != "lo";
    if good { Ok(()) } else { Err(format!("{name:?} is no name of an ethernet interface, such as eth0")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_with_their_colons() {
        let network =
            Network::parse("2001:db8::10/64:gateway=fe80::1:dns=2001:db8::1,2001:db8::2:interface=eth0")
                .unwrap();
        assert_eq!((network.gateway.as_deref(), network.dns.len()), (Some("fe80::1"), 2));
        assert_eq!((network.fixed().unwrap().1, network.interface.as_deref()), (64, Some("eth0")));
        assert!(Network::parse("dhcp").unwrap().fixed().is_none());
        assert!(Network::parse("192.0.2.10/32:gateway=198.51.100.1").is_ok());
    }

    #[test]
    fn wrong_values_are_refused_with_an_example() {
        for (text, words) in [
            ("", "neither dhcp nor"),
            ("DHCP", "neither dhcp nor"),
            ("192.0.2.10", "neither dhcp nor"),
            ("192.0.2.10/33", "neither dhcp nor"),
            ("192.0.2.10/+4", "neither dhcp nor"),
            ("0.0.0.0/8", "neither dhcp nor"),
            ("192.0.2.10/24:gw=192.0.2.1", "neither dhcp nor"),
            ("192.0.2.10/24:gatway=192.0.2.1", "did you mean gateway="),
            ("192.0.2.10/24:gateway=192.0.3.1", "no other machine"),
            ("192.0.2.10/24:gateway=192.0.2.10", "no other machine"),
            ("192.0.2.10/24:gateway=fe80::1", "no other machine"),
            ("2001:db8::10/64:dns=192.0.2.1", "cannot be reached"),
            ("dhcp:gateway=192.0.2.1", "leave it out"),
            ("dhcp:dns=one", "no IP address"),
            ("dhcp:interface=lo", "no name of"),
            ("dhcp:interface=../x", "no name of"),
            ("dhcp:interface=a b", "no name of"),
        ] {
            let error = Network::parse(text).unwrap_err();
            assert!(error.to_string().contains(words), "{text}: {error}");
            assert!(error.what_to_do().is_some_and(|hint| hint.contains("--add network:dhcp")), "{text}");
        }
    }

    #[test]
    fn of_several_each_names_its_interface() {
        let one = r#"{"interface":"eth0","address":"dhcp"}"#;
        assert!(Network::list(&format!("[{one}]")).is_ok());
        for wrong in [format!("[{one},{one}]"), format!("[{one},{{\"address\":\"dhcp\"}}]")] {
            assert!(Network::list(&wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_does_no_harm(text in "(dhcp|192\\.0\\.2\\.1/[0-9]{1,3}|[0-9a-f:/]{0,9})(:(gateway|dns|interface)=[0-9a-f.:,e]{0,12}){0,3}") {
            if let Ok(network) = Network::parse(&text) {
                let list = serde_json::to_string(&[&network]).unwrap();
                prop_assert_eq!(Network::list(&list).unwrap(), [network]);
            }
        }
    }
}
