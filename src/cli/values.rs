//! Values of flags: seconds, sizes, choices.

use std::time::Duration;

use super::UsageError;
use crate::secret::SafeText;

/// Longest time-out. Timers need a bound; whoever wants none writes 0 where 0 means none.
pub(super) const MAX_SECONDS: f64 = 365.0 * 24.0 * 3600.0;

/// Shortest time-out other than 0: timers are not finer.
pub(super) const MIN_SECONDS: f64 = 0.001;

/// Smallest `--max-message`: less would not hold an `initialize`.
pub(super) const MIN_MESSAGE: usize = 1 << 10;

/// Greatest `--max-message`.
pub(super) const MAX_MESSAGE: usize = 1 << 30;

/// Reads seconds, with a fraction if need be. `None` is 0.
fn seconds(flag: &str, text: &str) -> Result<Option<Duration>, UsageError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|_| is_number);
    let Some(number) = number else {
        return Err(UsageError::new(
            format!("{flag}: \"{}\" is not a number of seconds", SafeText(text)),
            "Write a number such as 30 or 0.5.",
        ));
    };
    if number == 0.0 {
        return Ok(None);
    }
    if (MIN_SECONDS..=MAX_SECONDS).contains(&number) {
        return Ok(Some(Duration::from_secs_f64(number)));
    }
    Err(UsageError::new(
        format!("{flag}: {} seconds is out of range", SafeText(text)),
        format!("Write a number from {MIN_SECONDS} to {MAX_SECONDS}."),
    ))
}

/// Seconds of which 0 means that there is no limit.
pub(super) fn limit(flag: &str, text: &str) -> Result<Option<Duration>, UsageError> {
    seconds(flag, text)
}

/// Seconds that may be 0.
pub(super) fn wait(flag: &str, text: &str) -> Result<Duration, UsageError> {
    Ok(seconds(flag, text)?.unwrap_or(Duration::ZERO))
}

/// Seconds that must not be 0.
pub(super) fn period(flag: &str, text: &str) -> Result<Duration, UsageError> {
    seconds(flag, text)?.ok_or_else(|| {
        UsageError::new(
            format!("{flag} cannot be 0"),
            format!("Write a number of seconds from {MIN_SECONDS} to {MAX_SECONDS}."),
        )
    })
}

/// Reads a size in bytes; `k`, `m`, `g` and `KiB`, `MiB`, `GiB` are powers of 1024.
pub(super) fn size(flag: &str, text: &str) -> Result<usize, UsageError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        _ => None,
    };
    let (Ok(number), Some(factor)) = (number.parse::<usize>(), factor) else {
        return Err(UsageError::new(
            format!("{flag}: \"{}\" is not a size", SafeText(text)),
            "Write bytes, or a number with k, m, g, KiB, MiB or GiB, such as 64m.",
        ));
    };
    match number.checked_mul(factor) {
        Some(bytes) if (MIN_MESSAGE..=MAX_MESSAGE).contains(&bytes) => Ok(bytes),
        _ => Err(UsageError::new(format!("{flag}: {} is out of range", SafeText(text)), "Write a size from 1k to 1g.")),
    }
}

/// Reads one of a few words.
pub(super) fn choice<T: Copy>(flag: &str, text: &str, words: &[(&str, T)]) -> Result<T, UsageError> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let list = match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    };
    Err(UsageError::new(format!("{flag}: \"{}\" is not known", SafeText(text)), format!("Write {list}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read() {
        let table =
            [("30", 30_000), ("0.5", 500), (".25", 250), ("5.", 5_000), ("0.001", 1), ("31536000", 31_536_000_000)];
        for (text, milliseconds) in table {
            assert_eq!(period("--t", text), Ok(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(limit("--t", text), Ok(Some(Duration::from_millis(milliseconds))), "{text}");
        }
        for zero in ["0", "0.0", "00"] {
            assert_eq!(limit("--t", zero), Ok(None));
            assert_eq!(wait("--t", zero), Ok(Duration::ZERO));
            assert_eq!(period("--t", zero).unwrap_err().message, "--t cannot be 0");
        }
    }

    #[test]
    fn other_seconds_are_refused() {
        for text in ["", ".", "x", "-1", "+1", "1e3", "inf", "NaN", "10s", "1,5", " 1", "1..2", "٣"] {
            let error = limit("--t", text).unwrap_err();
            assert_eq!(error.message, format!("--t: \"{text}\" is not a number of seconds"));
        }
        for text in ["0.0009", "31536000.1", "99999999999999999999999999"] {
            let error = limit("--t", text).unwrap_err();
            assert_eq!(error.message, format!("--t: {text} seconds is out of range"));
            assert_eq!(error.hint, "Write a number from 0.001 to 31536000.");
        }
    }

    #[test]
    fn sizes_are_read() {
        let table = [
            ("1024", 1 << 10),
            ("1k", 1 << 10),
            ("4KiB", 4 << 10),
            ("64m", 64 << 20),
            ("64MIB", 64 << 20),
            ("1g", 1 << 30),
            ("1GiB", 1 << 30),
            ("1073741824", 1 << 30),
        ];
        for (text, bytes) in table {
            assert_eq!(size("--s", text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        for text in ["", "k", "1.5m", "-1", "64MB", "64 m", "6é", "0x10", "99999999999999999999"] {
            assert_eq!(size("--s", text).unwrap_err().message, format!("--s: \"{text}\" is not a size"));
        }
        for text in ["0", "1023", "1073741825", "2g", "18446744073709551615g"] {
            assert_eq!(size("--s", text).unwrap_err().message, format!("--s: {text} is out of range"));
        }
    }

    #[test]
    fn choices_are_exact() {
        let words = [("one", 1), ("two", 2), ("three", 3)];
        assert_eq!(choice("--c", "two", &words), Ok(2));
        let error = choice("--c", "Two\x1b", &words).unwrap_err();
        assert_eq!(error.message, "--c: \"Two\\u{1b}\" is not known");
        assert_eq!(error.hint, "Write one, two or three.");
    }
}
