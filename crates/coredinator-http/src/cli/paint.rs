//! Colours that do not disturb alignment, and texts that cannot disturb the terminal.
//!
//! Tables are laid out with zero-width marks around what is coloured; only at the very end the marks become escape codes,
//! or nothing. What comes from outside is cleaned of marks and of everything else that moves a cursor.

use std::borrow::Cow;

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// All is well.
    Green,
    /// Somebody might look.
    Yellow,
    /// Somebody should look.
    Red,
    /// Of less interest.
    Dim,
    /// A heading.
    Bold,
}

const RESET: char = '\u{206a}';
const MARKS: [(Colour, char, &str); 5] = [
    (Colour::Green, '\u{206b}', "\x1b[32m"),
    (Colour::Yellow, '\u{206c}', "\x1b[33m"),
    (Colour::Red, '\u{206d}', "\x1b[31m"),
    (Colour::Dim, '\u{206e}', "\x1b[2m"),
    (Colour::Bold, '\u{206f}', "\x1b[1m"),
];

/// `text` between marks.
#[must_use]
pub fn paint(colour: Colour, text: &str) -> String {
    let mark = MARKS.iter().find(|(known, ..)| *known == colour).map_or(RESET, |(_, mark, _)| *mark);
    format!("{mark}{text}{RESET}")
}

/// A marked text for a terminal with colours, or without.
#[must_use]
pub fn finish(text: &str, colours: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match MARKS.iter().find(|(_, mark, _)| *mark == c) {
            Some((.., code)) if colours => out.push_str(code),
            None if c == RESET && colours => out.push_str("\x1b[0m"),
            None if c != RESET => out.push(c),
            _ => {}
        }
    }
    out
}

fn moves_cursor(c: char) -> bool {
    c.is_control() || ('\u{206a}'..='\u{206f}').contains(&c) || ('\u{202a}'..='\u{202e}').contains(&c)
}

/// A text from outside as one line of a table: whatever is no plain character becomes a space.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains(moves_cursor) { text.replace(moves_cursor, " ").into() } else { text.into() }
}

/// The same for a text of several lines, whose line ends and tabs stay.
#[must_use]
pub fn clean_lines(text: &str) -> String {
    text.chars().map(|c| if moves_cursor(c) && c != '\n' && c != '\t' { ' ' } else { c }).collect()
}

/// The colour of a status, a state or a severity.
#[must_use]
pub fn status_colour(status: &str) -> Option<Colour> {
    match status {
        "healthy" | "completed" | "running" | "ready" | "pass" => Some(Colour::Green),
        "degraded" | "starting" | "backoff" | "pending" | "stopping" | "warning" | "warn" => Some(Colour::Yellow),
        "unhealthy" | "failed" | "fail" => Some(Colour::Red),
        "stopped" | "unknown" => Some(Colour::Dim),
        _ => None,
    }
}

/// A status in its colour.
#[must_use]
pub fn status(status: &str) -> String {
    match status_colour(status) {
        Some(colour) => paint(colour, &clean(status)),
        None => clean(status).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_codes_or_nothing() {
        let text = format!("a {} b", status("healthy"));
        assert_eq!(finish(&text, false), "a healthy b");
        assert_eq!(finish(&text, true), "a \x1b[32mhealthy\x1b[0m b");
    }

    #[test]
    fn what_comes_from_outside_cannot_move_the_cursor() {
        let evil = format!("x\x1b[2Jy{}\n\tz\u{9b}", paint(Colour::Red, "q"));
        assert_eq!(clean(&evil), "x [2Jy q   z ");
        assert_eq!(clean_lines(&evil), "x [2Jy q \n\tz ");
        assert!(!finish(&status("\x1b]0;title\x07"), true).contains('\x1b'));
    }
}
