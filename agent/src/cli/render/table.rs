//! Tables.

use super::plain;

/// `rows` below `head`, columns aligned and two spaces apart. The last column may be as long as it likes.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
    let head = head.map(str::to_owned);
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(&rows).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `text` with every line cut to `width` columns, and whether any was. `None`: as it is, for what is no terminal.
pub fn fitted(text: &str, width: Option<usize>) -> (String, bool) {
    let Some(width) = width.filter(|width| *width > 1) else { return (text.to_owned(), false) };
    let mut cut = false;
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if line.chars().count() > width {
            cut = true;
            out.extend(line.chars().take(width - 1));
            out.push('…');
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    (out, cut)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        let rows =
            [["alice".to_owned(), "settled".to_owned(), String::new()], ["bo".to_owned(), "x".to_owned(), "why".to_owned()]];
        assert_eq!(table(["USER", "STATE", "DETAIL"], &rows), "USER   STATE    DETAIL\nalice  settled\nbo     x        why\n");
    }

    #[test]
    fn lines_are_cut_to_the_terminal_and_only_there() {
        let text = "USER  WHY\nbob   a turn is in flight\n";
        assert_eq!(fitted(text, None), (text.to_owned(), false));
        assert_eq!(fitted(text, Some(80)), (text.to_owned(), false));
        assert_eq!(fitted(text, Some(12)), ("USER  WHY\nbob   a tur…\n".to_owned(), true));
    }

    #[test]
    fn a_cell_cannot_start_a_line_or_command_the_terminal() {
        let text = table(["A"], &[["one\ntwo\x1b[2Jthree\u{9b}2J".to_owned()]]);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains(['\x1b', '\u{9b}']));
    }
}
