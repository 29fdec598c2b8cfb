//! Tables for people.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::paint::{Colour, paint};

/// Lays rows out under headings, two spaces between columns, no lines; columns whose heading starts with `>` are aligned to
/// the right. Cells are marked text. Ends with a line end.
#[must_use]
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let right = |i: usize| headings.get(i).is_some_and(|heading| heading.starts_with('>'));
    let cell = |i: usize, text: String| {
        Cell::new(text).set_alignment(if right(i) { CellAlignment::Right } else { CellAlignment::Left })
    };
    let plain =
        headings.iter().enumerate().map(|(i, heading)| cell(i, paint(Colour::Bold, heading.trim_start_matches('>'))));
    table.set_header(plain);
    for row in rows {
        table.add_row(row.into_iter().enumerate().map(|(i, text)| cell(i, text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::{finish, status};

    #[test]
    fn colours_do_not_disturb_alignment() {
        let text = table(
            &["NAME", "STATUS", ">N", "END"],
            vec![
                vec!["a".into(), status("healthy"), "1".into(), "x".into()],
                vec!["longer-name".into(), "z".into(), "100".into(), String::new()],
            ],
        );
        assert_eq!(
            finish(&text, false),
            "NAME         STATUS     N  END\na            healthy    1  x\nlonger-name  z        100\n"
        );
        assert!(finish(&text, true).contains("\x1b[32mhealthy\x1b[0m    1"));
    }
}
