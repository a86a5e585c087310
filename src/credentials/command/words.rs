//! `--bearer-command`: one text → the program and its arguments. Pure. No shell reads it, so the rules are few and fixed:
//!
//! - Blanks separate words.
//! - `'...'` is taken as it stands.
//! - In `"..."`, `\"` and `\\` stand for `"` and `\`; every other backslash stands for itself.
//! - Elsewhere, a backslash makes the next character an ordinary one. (So a Windows path is quoted.)
//! - Nothing else has a meaning: no variables, no `~`, no patterns, no pipes. What only a shell would carry out is refused where
//!   it stands as a word of its own without quotes.

use std::fmt;

/// Longest text, in bytes.
pub const MAX_BYTES: usize = 8 * 1024;
/// Most words.
pub const MAX_WORDS: usize = 128;

/// Words that only a shell would carry out.
const OPERATORS: [&str; 12] = ["|", "||", "|&", "&", "&&", ";", "<", ">", ">>", "2>", "&>", "2>&1"];

/// Why a text is no command. `Display` is a clause for a person that repeats nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotACommand {
    /// No word.
    Empty,
    /// Longer than [`MAX_BYTES`], or more than [`MAX_WORDS`].
    TooLong,
    /// A quote has no end.
    OpenQuote,
    /// A backslash is the last character.
    LastBackslash,
    /// A NUL, which no argument can hold.
    Nul,
    /// A word such as `|`.
    Operator,
}

impl fmt::Display for NotACommand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => out.write_str("names no program"),
            Self::TooLong => write!(out, "is longer than {MAX_BYTES} bytes or {MAX_WORDS} words"),
            Self::OpenQuote => out.write_str("has a quote without its end"),
            Self::LastBackslash => out.write_str("ends in a backslash"),
            Self::Nul => out.write_str("has a NUL character"),
            Self::Operator => out.write_str("has a word that only a shell would carry out, such as | or >"),
        }
    }
}

impl std::error::Error for NotACommand {}

/// Splits it. The first word is the program.
pub fn split(text: &str) -> Result<Vec<String>, NotACommand> {
    if text.len() > MAX_BYTES {
        return Err(NotACommand::TooLong);
    }
    if text.contains('\0') {
        return Err(NotACommand::Nul);
    }
    let mut words = Vec::new();
    // A word, and whether any of it was quoted: an empty word is one only then.
    let mut word: Option<(String, bool)> = None;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character.is_whitespace() {
            finish(&mut words, word.take())?;
            continue;
        }
        let (word, quoted) = word.get_or_insert_default();
        match character {
            '\'' => {
                *quoted = true;
                loop {
                    match rest.next().ok_or(NotACommand::OpenQuote)? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                *quoted = true;
                loop {
                    match rest.next().ok_or(NotACommand::OpenQuote)? {
                        '"' => break,
                        '\\' => match rest.next().ok_or(NotACommand::OpenQuote)? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => {
                *quoted = true;
                word.push(rest.next().ok_or(NotACommand::LastBackslash)?);
            }
            other => word.push(other),
        }
    }
    finish(&mut words, word)?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err(NotACommand::Empty),
    }
}

fn finish(words: &mut Vec<String>, word: Option<(String, bool)>) -> Result<(), NotACommand> {
    let Some((word, quoted)) = word else { return Ok(()) };
    if !quoted && OPERATORS.contains(&word.as_str()) {
        return Err(NotACommand::Operator);
    }
    if words.len() == MAX_WORDS {
        return Err(NotACommand::TooLong);
    }
    words.push(word);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split() {
        let table: &[(&str, &[&str])] = &[
            ("gcloud auth print-access-token", &["gcloud", "auth", "print-access-token"]),
            ("  a\t b\n", &["a", "b"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            ("a b' 'c\" \"d", &["a", "b c d"]),
            ("a '' \"\"", &["a", "", ""]),
            (r"a b\ c \'d\' \\", &["a", "b c", "'d'", "\\"]),
            (r#"a 'b\c"d' "e\"f\\g\h$(id)`id`""#, &["a", "b\\c\"d", "e\"f\\g\\h$(id)`id`"]),
            (r#"'C:\Program Files\v.exe' "C:\x\y""#, &["C:\\Program Files\\v.exe", "C:\\x\\y"]),
            ("op read op://vault/item", &["op", "read", "op://vault/item"]),
            ("a $HOME ~/x *.txt ${A} $(b) a|b x;y", &["a", "$HOME", "~/x", "*.txt", "${A}", "$(b)", "a|b", "x;y"]),
            ("a '|' \">\" \\; --x=>", &["a", "|", ">", ";", "--x=>"]),
            ("a\u{a0}b é", &["a", "b", "é"]),
        ];
        for (text, words) in table {
            assert_eq!(split(text).unwrap(), *words, "{text}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        use NotACommand::{Empty, LastBackslash, Nul, OpenQuote, Operator, TooLong};
        let most = "a ".repeat(MAX_WORDS);
        assert_eq!(split(&most).unwrap().len(), MAX_WORDS);
        let longest = "a".repeat(MAX_BYTES);
        assert!(split(&longest).is_ok());
        let table: &[(&str, NotACommand)] = &[
            ("", Empty),
            (" \t", Empty),
            ("'' a", Empty),
            ("a 'b", OpenQuote),
            ("a \"b", OpenQuote),
            ("a \"b\\", OpenQuote),
            ("a \"b\\\"", OpenQuote),
            ("a \\", LastBackslash),
            ("a\0b", Nul),
            ("vault token | jq -r .x", Operator),
            ("a && b", Operator),
            ("a 2> /dev/null", Operator),
            (&format!("{most}b"), TooLong),
            (&format!("{longest}a"), TooLong),
        ];
        for (text, wrong) in table {
            assert_eq!(split(text).unwrap_err(), *wrong, "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever the words are, quoted they come out as they went in.
        #[test]
        fn quoting_is_undone(words in proptest::collection::vec("[^\0]{0,8}", 1..6)) {
            proptest::prop_assume!(!words[0].is_empty());
            let single: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
            proptest::prop_assert_eq!(&split(&single.join(" ")).unwrap(), &words);
            let double: Vec<String> =
                words.iter().map(|word| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))).collect();
            proptest::prop_assert_eq!(&split(&double.join("\t")).unwrap(), &words);
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = split(&text);
        }
    }
}
