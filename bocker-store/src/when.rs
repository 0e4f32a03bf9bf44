//! Moments and stretches of time: as a person types them, as a log has them, as docker shows them.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Since 1970, negative before.
    pub(crate) seconds: i64,
    /// 0..1,000,000,000, counted forward.
    pub(crate) nanos: u32,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }

    /// RFC 3339: `2026-11-25T14:06:02.123456789Z`, or with an offset as `+01:00` in place of `Z`; up to nine digits count.
    pub(crate) fn rfc3339(text: &[u8]) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| digits(text.get(range)?);
        let is = |at: usize, what: &[u8]| text.get(at).is_some_and(|byte| what.contains(byte));
        let marks = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        // 60: a leap second.
        if !marks || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut rest = text.get(19..)?;
        let mut nanos = 0;
        if let Some(fraction) = rest.strip_prefix(b".") {
            let end = fraction.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(fraction.len());
            nanos = fraction_nanos(&fraction[..end])?;
            rest = &fraction[end..];
        }
        let offset = match rest {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
                let (hours, minutes) = (digits(hours)?, digits(&[*m1, *m2])?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
            }
            _ => return None,
        };
        // Years that begin in March, as in volumes::date.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year = (153 * month + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        Some(Self { seconds: days * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos })
    }

    /// As it may be typed: RFC 3339, seconds since 1970 as `1732543562` or `1732543562.5`, or how long ago, as `10m` or `1h30m`.
    ///
    /// # Errors
    /// What it may be.
    pub(crate) fn typed(text: &str) -> Result<Self, String> {
        Self::before(text, Self::now()).ok_or_else(|| {
            "not a time: RFC 3339 as 2026-11-25T14:06:02Z or with +01:00, seconds since 1970, or how long ago as 10m or 1h30m"
                .to_owned()
        })
    }

    fn before(text: &str, now: Self) -> Option<Self> {
        if let Some(moment) = Self::rfc3339(text.as_bytes()) {
            return Some(moment);
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if let (Some(seconds), Some(nanos)) = (digits(whole.as_bytes()), fraction_nanos(fraction.as_bytes())) {
            return Some(Self { seconds, nanos });
        }
        let ago = stretch(text)?;
        let then = i128::from(now.seconds) * 1_000_000_000 + i128::from(now.nanos) - ago;
        let seconds = i64::try_from(then.div_euclid(1_000_000_000)).ok()?;
        Some(Self { seconds, nanos: u32::try_from(then.rem_euclid(1_000_000_000)).ok()? })
    }
}

/// Plain digits, no sign.
fn digits(text: &[u8]) -> Option<i64> {
    let plain = !text.is_empty() && text.len() <= 12 && text.iter().all(u8::is_ascii_digit);
    plain.then(|| text.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// Digits after the point as billionths; those after the ninth are cut off.
fn fraction_nanos(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| text.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    Some((0..9).fold(0, |sum, at| sum * 10 + digit(at)))
}

/// Nanoseconds of `1h30m`, `1.5s`, `300ms`: the grammar of Go's time.ParseDuration, which docker reads, without a sign.
fn stretch(text: &str) -> Option<i128> {
    const UNITS: [(&str, i128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (mut rest, mut sum) = (text, 0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let (whole, nanos) = (digits(whole.as_bytes())?, fraction_nanos(fraction.as_bytes())?);
        sum += i128::from(whole) * unit + i128::from(nanos) * unit / 1_000_000_000;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

/// So many seconds in docker's words, `HumanDuration` of its go-units.
pub(crate) fn human(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::date;
    use proptest::prelude::*;

    fn seconds(text: &str) -> Option<(i64, u32)> {
        Moment::rfc3339(text.as_bytes()).map(|moment| (moment.seconds, moment.nanos))
    }

    #[test]
    fn rfc3339() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(seconds("2000-02-29T00:00:00.5Z"), Some((951_782_400, 500_000_000)));
        assert_eq!(seconds("2000-02-29T01:00:00.123456789+01:00"), Some((951_782_400, 123_456_789)));
        assert_eq!(seconds("2000-02-28T22:30:00.1234567891-01:30"), Some((951_782_400, 123_456_789)));
        for text in [
            "",
            "2000",
            "2000-02-29",
            "2000-02-29T00:00:00",
            "2000-02-29T00:00:00.Z",
            "2000-13-01T00:00:00Z",
            "2000-00-01T00:00:00Z",
            "2000-01-32T00:00:00Z",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:60:00Z",
            "2000-01-01T00:00:00ZZ",
            "2000-01-01T00:00:00+1:00",
            "2000-01-01T00:00:00+24:00",
            "2000-01-01T00:00:00+",
            "+000-01-01T00:00:00Z",
            "2000/01/01T00:00:00Z",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn typed() {
        let now = Moment { seconds: 1000, nanos: 0 };
        let then = |text| Moment::before(text, now).map(|moment| (moment.seconds, moment.nanos));
        for (text, expected) in [
            ("0", (0, 0)),
            ("1732543562.25", (1_732_543_562, 250_000_000)),
            ("10m", (400, 0)),
            ("1m1.5s", (938, 500_000_000)),
            ("1h", (-2600, 0)),
            ("300ms", (999, 700_000_000)),
            ("1970-01-01T00:00:07Z", (7, 0)),
        ] {
            assert_eq!(then(text), Some(expected), "{text}");
        }
        for text in
            ["", "m", "10", "10x", "-5m", "1h-5m", "5 m", ".", "1.", ".5s", "yesterday", "9999999999999h", "1.2.3s"]
        {
            assert_eq!(then(text).filter(|_| text != "10"), None, "{text}");
        }
    }

    #[test]
    fn dockers_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (730 * 86_400, "2 years"),
        ] {
            assert_eq!(human(seconds), words, "{seconds}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(at in -62_135_596_800_i64..253_402_300_800) {
            prop_assert_eq!(Moment::rfc3339(date(at).as_bytes()), Some(Moment { seconds: at, nanos: 0 }));
        }

        #[test]
        fn nothing_typed_breaks_it(text in "\\PC{0,40}", numbers in "[0-9.hmsuµnTZ:+-]{0,40}") {
            let now = Moment::now();
            let _ = (Moment::before(&text, now), Moment::before(&numbers, now));
        }
    }
}
