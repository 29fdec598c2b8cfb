//! Names that are parsed once, at the boundary, and cannot be wrong afterwards.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text is not a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing between the quotes.
    #[error("must not be empty")]
    Empty,
    /// DNS labels end at 63 bytes.
    #[error("must be at most 63 characters, but has {0}")]
    TooLong(usize),
    /// Something that a DNS label cannot hold.
    #[error("must consist of a-z, 0-9 and '-', but has {0:?}")]
    Character(char),
    /// `-` at either end.
    #[error("must start and end with a letter or a digit")]
    Edge,
}

/// Checks that `text` is a DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9`, `-`, neither end a `-`.
///
/// # Errors
/// The first rule that `text` breaks.
pub(crate) fn check_dns_label(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(InvalidName::Character(bad));
    }
    if text.len() > 63 {
        return Err(InvalidName::TooLong(text.len()));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(InvalidName::Edge);
    }
    Ok(())
}

macro_rules! label_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a DNS label.
            ///
            /// # Errors
            /// The rule that `text` breaks.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                check_dns_label(text).map(|()| Self(text.into()))
            }

            /// The text as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

label_type! {
    /// The name of a service: a DNS label, unique within one coredinator. Cheap to clone.
    ServiceName
}

label_type! {
    /// The name under which a [`Runtime`](crate::Runtime) is registered, as `runtime:` in a spec says it:
    /// `process`, `docker`, or a plugin's own.
    RuntimeName
}

label_type! {
    /// The name of a machine, or of the one coredinator on it: a DNS label, unique among those that share a store.
    NodeName
}

label_type! {
    /// One life of one replica of a service: coined before the instance starts, never used again.
    ///
    /// A DNS label, so that every runtime can carry it as a label, a container name or a pod name.
    InstanceId
}

impl InstanceId {
    /// How many characters of a service's name an id repeats for the reader's sake: what 63 leave beside two dashes, ten
    /// digits of a replica and 13 of the random part.
    const READABLE: usize = 38;

    /// Coins an id from the service it belongs to and 64 random bits, which alone make it unique.
    #[must_use]
    pub fn coin(service: &ServiceName, replica: u32, random: u64) -> Self {
        let service = service.as_str();
        let readable = service[..service.len().min(Self::READABLE)].trim_end_matches('-');
        Self(format!("{readable}-{replica}-{}", Base32(random)).into())
    }
}

/// 13 characters of Crockford's base 32 in lower case.
struct Base32(u64);

impl fmt::Display for Base32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        (0..13).rev().try_for_each(|i| {
            let digit = (self.0 >> (5 * i)) & 31;
            fmt::Write::write_char(f, char::from(DIGITS[usize::try_from(digit).unwrap_or(0)]))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dns_labels() {
        for good in ["a", "corerl", "core-io-2", "0", &"x".repeat(63)] {
            assert_eq!(ServiceName::new(good).map(String::from).as_deref(), Ok(good));
        }
        for (bad, why) in [
            ("", InvalidName::Empty),
            ("CoreRL", InvalidName::Character('C')),
            ("a_b", InvalidName::Character('_')),
            ("a/b", InvalidName::Character('/')),
            ("-a", InvalidName::Edge),
            ("a-", InvalidName::Edge),
            (&"x".repeat(64), InvalidName::TooLong(64)),
        ] {
            assert_eq!(ServiceName::new(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn serde_refuses_what_parse_refuses() {
        assert!(serde_json::from_str::<ServiceName>("\"A\"").is_err());
        assert_eq!(serde_json::to_string(&ServiceName::new("a").unwrap()).unwrap(), "\"a\"");
    }

    proptest! {
        #[test]
        fn coined_ids_are_labels_and_differ(name in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?", replica: u32, a: u64, b: u64) {
            let service = ServiceName::new(&name).unwrap();
            let id = InstanceId::coin(&service, replica, a);
            prop_assert!(InstanceId::new(id.as_str()).is_ok(), "{id}");
            prop_assert_eq!(a == b, id == InstanceId::coin(&service, replica, b));
        }
    }
}
