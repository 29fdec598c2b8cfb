//! What is waited for, in a word.

use std::{fmt, str::FromStr};

use coredinator_core::{ServiceStatus, field::nearest};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The service has this status.
    Status(ServiceStatus),
    /// There is no such service.
    Deleted,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "deleted" {
            return Ok(Self::Deleted);
        }
        text.parse().map(Self::Status).map_err(|error: String| {
            let mut known: Vec<&str> = ServiceStatus::ALL.iter().map(|status| status.as_str()).collect();
            known.push("deleted");
            nearest(text, &known).map_or(error, |near| format!("unknown status {text:?}: did you mean {near:?}?"))
        })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.pad(status.as_str()),
            Self::Deleted => f.pad("deleted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!("deleted".parse(), Ok(Wanted::Deleted));
        assert_eq!("helthy".parse::<Wanted>().unwrap_err(), "unknown status \"helthy\": did you mean \"healthy\"?");
    }
}
