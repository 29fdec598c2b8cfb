//! The database's URL, which holds a password.

use std::fmt;

use serde::{Serialize, Serializer};

/// A database URL. Whatever shows it (Display, Debug, serialization) leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Takes a URL as it is.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password, for whoever connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL with `***` for the password, and for the values of parameters whose names speak of secrets.
    #[must_use]
    pub fn redacted(&self) -> String {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), self.0.as_str()),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        // A password may hold '/' and '@' that should have been encoded: everything up to the last '@' is hidden.
        let rest = match rest.rsplit_once('@') {
            Some((login, place)) => match login.split_once(':') {
                Some((user, _)) => format!("{user}:***@{place}"),
                None => format!("{login}@{place}"),
            },
            None => rest.to_owned(),
        };
        let query = query.map(|query| {
            let parts = query.split('&').map(|part| match part.split_once('=') {
                Some((key, _)) if key.contains("pass") || key.contains("key") || key.contains("token") => {
                    format!("{key}=***")
                }
                _ => part.to_owned(),
            });
            format!("?{}", parts.collect::<Vec<_>>().join("&"))
        });
        format!("{scheme}{rest}{}", query.unwrap_or_default())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.redacted())
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for (url, shown) in [
            ("postgresql://postgres:password@db:5432/postgres", "postgresql://postgres:***@db:5432/postgres"),
            ("postgres://me@db/x", "postgres://me@db/x"),
            ("postgres://me:a@b/c:d@db/x", "postgres://me:***@db/x"),
            ("sqlite://coredinator.db", "sqlite://coredinator.db"),
            (
                "postgres://db/x?user=me&password=secret&sslmode=require",
                "postgres://db/x?user=me&password=***&sslmode=require",
            ),
            ("me:secret@db", "me:***@db"),
        ] {
            let url = DatabaseUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
            assert_eq!(serde_json::to_value(&url).unwrap(), shown);
        }
    }
}
