//! Data on stdout, talk on stderr. Nothing else prints.

use std::{
    env,
    fmt::{Display, Write as _},
    io::{self, IsTerminal, Write as _},
};

use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

/// What is longer is left to the verb that shows one thing alone.
const CELL_CHARS_MAX: usize = 160;
/// Width of the longest bar of a chart, in characters.
const BAR_CHARS: u64 = 40;

/// How data is printed on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// Where a verb prints.
#[derive(Debug, Clone)]
pub struct Output {
    format: Format,
    colour: bool,
    /// Data is for a terminal that shows colour.
    paints: bool,
}

impl Output {
    /// Prints data in this format; colours where it is a terminal and `NO_COLOR` is unset.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            format,
            colour: !refused && io::stderr().is_terminal(),
            paints: !refused && io::stdout().is_terminal(),
        }
    }

    /// Whether data for people may be coloured.
    pub(crate) fn paints_data(&self) -> bool {
        self.paints
    }

    /// Prints data: as JSON or YAML from its `Serialize`, else the text that `people` makes.
    pub fn data<T: Serialize>(
        &self,
        data: &T,
        people: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let mut text = match self.format {
            Format::Table => people(data),
            Format::Json => serde_json::to_string_pretty(data)?,
            Format::Yaml => serde_saphyr::to_string(data)?,
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.raw(text.as_bytes())?;
        Ok(())
    }

    /// Prints bytes on stdout as they are.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Talk for people.
    pub fn say(&self, text: impl Display) {
        line_to_stderr(format_args!("{text}"));
    }

    /// That something takes long: for whoever sits at a terminal, and in no log.
    pub fn progress(&self, text: impl Display) {
        if io::stderr().is_terminal() {
            self.say(text);
        }
    }

    /// Something that people should look at, although the verb goes on.
    pub fn warn(&self, text: impl Display) {
        line_to_stderr(format_args!("{} {text}", self.label("warning:", "33")));
    }

    /// An error with its causes, once.
    pub fn error(&self, error: &anyhow::Error) {
        line_to_stderr(format_args!("{} {error:#}", self.label("error:", "1;31")));
    }

    fn label(&self, text: &str, sgr: &str) -> String {
        if self.colour {
            format!("\x1b[{sgr}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn line_to_stderr(text: std::fmt::Arguments<'_>) {
    // Nobody is left to tell when stderr is closed.
    _ = writeln!(io::stderr().lock(), "{text}");
}

/// Columns under upper-case headers, without lines. No rows give an empty text.
#[must_use]
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    table_of(header, rows.into_iter().map(Vec::from))
}

/// As [`table`], of as many columns as it turns out.
#[must_use]
pub fn table_of<'a>(
    header: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    if table.is_empty() {
        return String::new();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt()
}

/// Tables under each other, those that are empty left out.
#[must_use]
pub fn parts(parts: impl IntoIterator<Item = String>) -> String {
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n\n")
}

/// Text from outside as one line that cannot steer the terminal.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            // Writing to a String cannot fail.
            _ = write!(clean, "{}", char.escape_default());
        } else {
            clean.push(char);
        }
    }
    clean
}

/// The beginning of a text that is longer than a cell should be.
#[must_use]
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// `1 run`, `6 runs`.
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// As [`count`], of a number from the API.
#[must_use]
pub fn counted(n: u64, noun: &str) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), noun)
}

/// A bar of a chart beside `most`, as `████ 12`; what is there at all has at least one mark.
#[must_use]
pub fn bar(count: u64, most: u64) -> String {
    let marks = (count * BAR_CHARS).checked_div(most).unwrap_or(0);
    let marks = marks.max(u64::from(count > 0));
    let marks = "█".repeat(usize::try_from(marks).unwrap_or(0));
    match marks.is_empty() {
        true => count.to_string(),
        false => format!("{marks} {count}"),
    }
}

/// An instant to the second, in UTC; `-` where there is none.
#[must_use]
pub fn instant(at: Option<jiff::Timestamp>) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// Names and values under each other; those without a value are left out.
#[must_use]
pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<_> = fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields
        .iter()
        .fold(String::new(), |mut text, (name, value)| {
            // Writing to a String cannot fail.
            _ = writeln!(text, "{name:width$}   {}", one_line(value));
            text
        })
}

/// A length of time in its two largest units: `2d 3h`, `12m 5s`, `0s`.
#[must_use]
pub fn length(seconds: i64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut rest = seconds.max(0);
    let mut parts = Vec::new();
    for (unit, size) in units {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
        } else if !parts.is_empty() {
            // Only neighbouring units: `2d 5m` says less than it seems to.
            break;
        }
        if parts.len() == 2 {
            break;
        }
        rest %= size;
    }
    if parts.is_empty() {
        return "0s".to_owned();
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_show_two_neighbouring_units() {
        for (seconds, text) in [
            (-3, "0s"),
            (0, "0s"),
            (59, "59s"),
            (725, "12m 5s"),
            (3_600, "1h"),
            (3_605, "1h"),
            (183_600, "2d 3h"),
        ] {
            assert_eq!(length(seconds), text);
        }
    }

    #[test]
    fn the_longest_bar_is_full_and_the_smallest_is_seen() {
        assert_eq!(bar(80, 80), format!("{} 80", "█".repeat(40)));
        assert_eq!(bar(1, 1_000), "█ 1");
        assert_eq!(bar(0, 1_000), "0");
        assert_eq!(bar(0, 0), "0");
    }

    #[test]
    fn cells_cannot_steer_the_terminal() {
        let text = table(["TITLE"], [["red \x1b[31m\nline".to_owned()]]);
        assert_eq!(text, "TITLE\nred \\u{1b}[31m\\nline");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let just = "é".repeat(CELL_CHARS_MAX);
        assert_eq!(shortened(&just), just);
        assert_eq!(shortened(&format!("{just}é")), format!("{just}…"));
    }

    #[test]
    fn no_rows_print_nothing() {
        assert_eq!(table(["A", "B"], []), "");
    }
}
