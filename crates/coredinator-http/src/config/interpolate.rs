//! Variables in texts, with Compose's meaning.

use std::borrow::Cow;

/// Answers the value of a variable.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// How deep defaults may hold variables with defaults.
const MAX_NESTING: usize = 8;
/// The longest text that may come out, in bytes.
const MAX_TEXT: usize = 8 << 20;

/// Why a text's variables cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterpolateError {
    /// Nobody set it.
    #[error("variable {0} is not set")]
    Missing(String),
    /// The text asks for it with a message of its own: `${NAME:?message}`.
    #[error("variable {name} is required: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the text says about it.
        message: String,
    },
    /// Its variables make it longer than what is read.
    #[error("the text, its variables replaced, has more than {MAX_TEXT} bytes")]
    TooLong,
    /// `${` that does not go on as a variable.
    #[error("cannot read the variable in {0:?}")]
    Syntax(String),
}

impl InterpolateError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(name) => Some(format!(
                "set {name}, give a default (${{{name}:-value}}), or write $${{{name}}} for the text itself"
            )),
            Self::Required { .. } | Self::TooLong => None,
            Self::Syntax(_) => Some("write ${NAME} or ${NAME:-default}, and $$ for a dollar sign".to_owned()),
        }
    }
}

/// Replaces `${NAME}`, and answers whether anything was replaced by answering an owned text.
///
/// `${NAME:-text}` and `${NAME:+text}` give `text` where the variable is unset or empty, respectively is not;
/// `${NAME:?message}` is an error there; without the colon an empty variable counts as set. `$$` is one dollar sign. A dollar
/// sign before anything else stands for itself, so that a shell's `$NAME` reaches the shell.
///
/// # Errors
/// The first variable that has no value, or that cannot be read.
pub fn interpolate<'t>(text: &'t str, lookup: &Lookup<'_>) -> Result<Cow<'t, str>, InterpolateError> {
    if text.contains("${") || text.contains("$$") {
        replace(text, lookup, 0).map(Cow::Owned)
    } else {
        Ok(Cow::Borrowed(text))
    }
}

fn replace(text: &str, lookup: &Lookup<'_>, nesting: usize) -> Result<String, InterpolateError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).filter(|_| nesting < MAX_NESTING).ok_or_else(|| syntax(rest))?;
            out.push_str(&variable(&after[..end], lookup, nesting)?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
        if out.len() > MAX_TEXT {
            return Err(InterpolateError::TooLong);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that is open at the start of `text` is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1usize;
    for (i, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(i);
        }
    }
    None
}

fn variable(inside: &str, lookup: &Lookup<'_>, nesting: usize) -> Result<String, InterpolateError> {
    let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
    let (name, operator) = inside.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(syntax(&format!("{{{inside}}}")));
    }
    let (colon, operator) = match operator.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, operator),
    };
    let value = lookup(name).filter(|value| !(colon && value.is_empty()));
    let mut operator_chars = operator.chars();
    match (operator_chars.next(), value) {
        (None, Some(value)) if !colon => Ok(value),
        (None, None) if !colon => Err(InterpolateError::Missing(name.to_owned())),
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => replace(operator_chars.as_str(), lookup, nesting + 1),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => Err(InterpolateError::Required {
            name: name.to_owned(),
            message: replace(operator_chars.as_str(), lookup, nesting + 1)?,
        }),
        _ => Err(syntax(&format!("{{{inside}}}"))),
    }
}

fn syntax(rest: &str) -> InterpolateError {
    let shown: String = rest.chars().take(40).collect();
    InterpolateError::Syntax(format!("${shown}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "SET" => Some("value".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn compose_table() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("${SET}", "value"),
            ("a${SET}b${SET}", "avaluebvalue"),
            ("${EMPTY}", ""),
            ("${NONE:-default}", "default"),
            ("${EMPTY:-default}", "default"),
            ("${EMPTY-default}", ""),
            ("${NONE-default}", "default"),
            ("${NONE:-}", ""),
            ("${NONE:-${SET}}", "value"),
            ("${NONE:-${NONE2:-{deep}}}", "{deep}"),
            ("${SET:+there}", "there"),
            ("${NONE:+there}", ""),
            ("${EMPTY:+there}", ""),
            ("${EMPTY+there}", "there"),
            ("${SET:?why}", "value"),
            ("$$", "$"),
            ("$${SET}", "${SET}"),
            ("$SET costs 5$", "$SET costs 5$"),
            ("{port}", "{port}"),
            ("é${SET}ü", "évalueü"),
        ] {
            assert_eq!(interpolate(text, &lookup).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_told() {
        let fails = |text: &str| interpolate(text, &lookup).unwrap_err();
        assert_eq!(fails("${NONE}"), InterpolateError::Missing("NONE".into()));
        assert_eq!(fails("${EMPTY:?say why}").to_string(), "variable EMPTY is required: say why");
        for bad in ["${", "${SET", "${}", "${1A}", "${SET:}", "${SET!}", "${a b}", "x ${é}"] {
            assert!(matches!(fails(bad), InterpolateError::Syntax(_)), "{bad}");
        }
        let deep = "${N:-".repeat(100_000) + &"}".repeat(100_000);
        assert!(matches!(fails(&deep), InterpolateError::Syntax(_)));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[${}:a-z?+é-]{0,40}") {
            let _ = interpolate(&text, &lookup);
        }
    }
}
