//! docker's `--format`: a Go template of which this knows what people use, `{{.Name}}`, `{{.Label "key"}}`, `{{json .}}` and
//! `{{json .Name}}`, with `\t` and `\n`. Everything else is refused, with status 64 as docker has it.

use bocker_common::{Error, Result};

/// docker's status for a template that is none, EX_USAGE of sysexits.h.
const BAD: u8 = 64;

/// What stands between the braces, or outside of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<F> {
    /// As it is.
    Text(String),
    /// `{{.Name}}`
    Field(F),
    /// `{{.Label "key"}}`
    Label(String),
    /// `{{json .Name}}`
    Json(F),
    /// `{{json .}}`
    JsonAll,
}

/// A template's pieces in their order.
pub(crate) type Template<F> = Vec<Piece<F>>;

fn bad(template: &str, why: String) -> Error {
    let shown: String = template.chars().take(64).collect();
    Error::plain(format!("bad template '{shown}': {why}"))
        .hint(r#"{{.Name}}, {{.Label "key"}}, {{json .}} and {{json .Name}} are known"#)
        .status(BAD)
}

/// Reads a template; `field` knows the names.
///
/// # Errors
/// What it is no template by; status 64.
pub(crate) fn parse<F>(text: &str, field: impl Fn(&str) -> Option<F>) -> Result<Template<F>> {
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    let named = |word: &str| {
        let name = word.strip_prefix('.').unwrap_or_default();
        field(name).ok_or_else(|| bad(&text, format!("there is no '{}'", word.chars().take(32).collect::<String>())))
    };
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, inner)) = rest.split_once("{{") {
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let (inner, after) = action(inner).ok_or_else(|| bad(&text, "a {{ without its }}".to_owned()))?;
        rest = after;
        let (word, argument) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
        pieces.push(match (word, argument.trim()) {
            ("json", ".") => Piece::JsonAll,
            ("json", name) => Piece::Json(named(name)?),
            (".Label", key) => {
                Piece::Label(string(key).ok_or_else(|| bad(&text, ".Label takes one string".to_owned()))?)
            }
            (word, "") => Piece::Field(named(word)?),
            _ => return Err(bad(&text, format!("'{}' takes nothing", word.chars().take(32).collect::<String>()))),
        });
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// What stands before the closing braces, and what after; within quotes they close nothing.
fn action(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some((text[..at].trim(), &text[at + 2..])),
            None => {}
        }
    }
    None
}

/// Go's string: between quotes with `\"` and `\\`, or between backquotes as it is.
fn string(text: &str) -> Option<String> {
    if let Some(raw) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
        return (!raw.contains('`')).then(|| raw.to_owned());
    }
    let inner = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(out),
            '\\' => out.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => out.push(c),
        }
    }
}

/// Lines of cells, parted by tabs, as columns: each as wide as its widest cell and three spaces, ten at least, as docker's.
pub(crate) fn columns(text: &str) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split('\t').collect();
        // The last is as wide as it is.
        for (n, cell) in cells[..cells.len() - 1].iter().enumerate() {
            if widths.len() == n {
                widths.push(10);
            }
            widths[n] = widths[n].max(cell.chars().count() + 3);
        }
    }
    let mut out = String::new();
    for line in text.lines() {
        let mut cells = line.split('\t').enumerate().peekable();
        while let Some((n, cell)) = cells.next() {
            out += cell;
            if cells.peek().is_some() {
                out.extend(std::iter::repeat_n(' ', widths[n] - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(name: &str) -> Option<String> {
        ["ID", "Names", "Status"].contains(&name).then(|| name.to_owned())
    }

    fn read(text: &str) -> Result<Template<String>> {
        parse(text, field)
    }

    #[test]
    fn what_people_type() {
        use Piece::{Field, Json, JsonAll, Label, Text};
        let (id, names, text) = ("ID".to_owned(), "Names".to_owned(), |text: &str| Text(text.to_owned()));
        for (template, pieces) in [
            ("", vec![]),
            ("{{.ID}}", vec![Field(id.clone())]),
            (r"{{.ID}}\t{{ .Names }}\n", vec![Field(id.clone()), text("\t"), Field(names), text("\n")]),
            ("a}}b { {{.ID}}", vec![text("a}}b { "), Field(id.clone())]),
            (r#"{{.Label "a}}b\"\\"}}"#, vec![Label(r#"a}}b"\"#.to_owned())]),
            ("{{.Label `a\\b`}}x", vec![Label("a\\b".to_owned()), text("x")]),
            ("{{json .}}{{json .ID}}", vec![JsonAll, Json(id)]),
        ] {
            assert_eq!(read(template).unwrap(), pieces, "{template}");
        }
    }

    #[test]
    fn what_is_no_template() {
        for template in [
            "{{",
            "{{.ID",
            "{{.ID}",
            "{{}}",
            "{{ID}}",
            "{{.Id}}",
            "{{.ID .Names}}",
            "{{.Label}}",
            "{{.Label x}}",
            "{{.Label \"a}}",
            "{{.Label \"a\" \"b\"}}",
            "{{json}}",
            "{{json .X}}",
            "{{if .ID}}x{{end}}",
            "{{..ID}}",
            "{{.ID}}{{.}}",
        ] {
            let error = read(template).unwrap_err();
            assert_eq!(error.exit_status(), 64, "{template}");
            assert!(error.to_string().starts_with("bad template '"), "{error}");
        }
    }

    #[test]
    fn columns_as_dockers() {
        assert_eq!(
            columns("A\tB\tC\nlonger than ten\tü\tx\n"),
            "A                 B         C\nlonger than ten   ü         x\n"
        );
        assert_eq!(columns("A\n\n"), "A\n\n");
        assert_eq!(columns(""), "");
    }

    fn word() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["{{", "}}", ".ID", ".Label", "json", " ", "\"", "`", "\\", "a", "\\t", "é", "."])
            .prop_map(str::to_owned)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_breaks_it(words in prop::collection::vec(word(), 0..20), any in "\\PC{0,30}") {
            for text in [words.concat(), any] {
                if let Err(error) = read(&text) {
                    prop_assert_eq!(error.exit_status(), 64);
                    prop_assert!(error.to_string().len() < 400);
                }
            }
        }

        /// Text that has no opening braces is itself.
        #[test]
        fn text_is_text(text in "[^{\\\\]{1,30}") {
            prop_assert_eq!(read(&text).unwrap(), vec![Piece::Text(text)]);
        }

        /// A key of any characters comes through its quotes.
        #[test]
        fn keys_come_through(key in "[^\\\\\"]{0,20}") {
            prop_assume!(!key.contains("\\t") && !key.contains("\\n"));
            let quoted = format!("{{{{.Label \"{key}\"}}}}");
            prop_assert_eq!(read(&quoted).unwrap(), vec![Piece::Label(key)]);
        }

        /// No cell is cut, and the columns stand below each other.
        #[test]
        fn columns_are_straight(rows in prop::collection::vec(prop::collection::vec("[a-zé]{0,14}", 3), 1..6)) {
            let text: String = rows.iter().map(|row| row.join("\t") + "\n").collect();
            let shown = columns(&text);
            let lines: Vec<Vec<char>> = shown.lines().map(|line| line.chars().collect()).collect();
            prop_assert_eq!(lines.len(), rows.len());
            let width = |n: usize| rows.iter().map(|row| row[n].chars().count() + 3).max().unwrap_or(0).max(10);
            for (line, row) in lines.iter().zip(&rows) {
                let second: String = line.iter().skip(width(0)).take(row[1].chars().count()).collect();
                let third: String = line.iter().skip(width(0) + width(1)).collect();
                prop_assert_eq!((&second, &third), (&row[1], &row[2]));
            }
        }
    }
}
