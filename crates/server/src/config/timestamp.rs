//! The time in front of a log line, in UTC.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How the time is written in front of a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timestamp {
    /// Not at all.
    Off,
    /// Whole seconds since 1970, as Mosquitto does unless told otherwise.
    EpochSeconds,
    /// `2026-03-01T12:34:56.789Z`; the default.
    Rfc3339,
    /// A pattern after strftime, with the conversions of [`Timestamp::CONVERSIONS`].
    Pattern(String),
}

impl Timestamp {
    /// The conversions known in a pattern, each after a `%`.
    pub const CONVERSIONS: &str = "YmdHMSFTDRyCejIpabhABsZznt%";

    /// The format of that name, `rfc3339` or `epoch`, or the pattern; the character of the first conversion
    /// that is not known otherwise.
    pub(super) fn parse(text: &str) -> Result<Self, char> {
        match text {
            "rfc3339" => return Ok(Self::Rfc3339),
            "epoch" => return Ok(Self::EpochSeconds),
            _ => {}
        }
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character == '%' {
                match characters.next() {
                    Some(conversion) if Self::CONVERSIONS.contains(conversion) => {}
                    other => return Err(other.unwrap_or('%')),
                }
            }
        }
        Ok(Self::Pattern(text.to_owned()))
    }

    /// Writes `now` at the end of `line`; nothing for [`Timestamp::Off`]. Times before 1970 are written as 1970.
    ///
    /// The time is UTC, so that the lines of several machines can be laid side by side and no hour is there
    /// twice in a year.
    pub fn write(&self, now: SystemTime, line: &mut String) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let time = Civil::at(since.as_secs());
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Off => Ok(()),
            Self::EpochSeconds => write!(line, "{}", since.as_secs()),
            Self::Rfc3339 => write!(
                line,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
                time.year,
                time.month,
                time.day,
                time.hour,
                time.minute,
                time.second,
                since.subsec_millis()
            ),
            Self::Pattern(pattern) => {
                let mut characters = pattern.chars();
                while let Some(character) = characters.next() {
                    match (character, character == '%') {
                        (_, true) => time.convert(characters.next().unwrap_or('%'), since.as_secs(), line),
                        (other, false) => line.push(other),
                    }
                }
                Ok(())
            }
        };
    }

    /// As it is written in a configuration.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::EpochSeconds => "epoch".to_owned(),
            Self::Rfc3339 => "rfc3339".to_owned(),
            Self::Pattern(pattern) => pattern.clone(),
        }
    }
}

/// A second of the Gregorian calendar, UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    day_of_year: u64,
    /// Sunday is 0.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    fn at(seconds: u64) -> Self {
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        // 400 years are 146 097 days; counted from 1 March 0000, so that the leap day is the last of its year.
        let from_march = days + 719_468;
        let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_march_year + 2) / 153;
        let day = day_of_march_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        // 1 January is day 306 of the year that began in March before.
        let day_of_year =
            if month <= 2 { day_of_march_year - 306 + 1 } else { day_of_march_year + 59 + u64::from(leap) + 1 };
        Self {
            year,
            month,
            day,
            day_of_year,
            // 1 January 1970 was a Thursday.
            weekday: ((days + 4) % 7) as usize,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }

    fn convert(&self, conversion: char, epoch_seconds: u64, line: &mut String) {
        const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
        const MONTHS: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        let month = MONTHS[self.month as usize - 1];
        let hour_of_half = if self.hour.is_multiple_of(12) { 12 } else { self.hour % 12 };
        let Self { year, day, hour, minute, second, .. } = self;
        let _ = match conversion {
            'Y' => write!(line, "{year}"),
            'C' => write!(line, "{:02}", year / 100),
            'y' => write!(line, "{:02}", year % 100),
            'm' => write!(line, "{:02}", self.month),
            'd' => write!(line, "{day:02}"),
            'e' => write!(line, "{day:2}"),
            'j' => write!(line, "{:03}", self.day_of_year),
            'H' => write!(line, "{hour:02}"),
            'I' => write!(line, "{hour_of_half:02}"),
            'M' => write!(line, "{minute:02}"),
            'S' => write!(line, "{second:02}"),
            'p' => write!(line, "{}", if *hour < 12 { "AM" } else { "PM" }),
            'F' => write!(line, "{year}-{:02}-{day:02}", self.month),
            'D' => write!(line, "{:02}/{day:02}/{:02}", self.month, year % 100),
            'T' => write!(line, "{hour:02}:{minute:02}:{second:02}"),
            'R' => write!(line, "{hour:02}:{minute:02}"),
            'a' => write!(line, "{}", &WEEKDAYS[self.weekday][..3]),
            'A' => write!(line, "{}", WEEKDAYS[self.weekday]),
            'b' | 'h' => write!(line, "{}", &month[..3]),
            'B' => write!(line, "{month}"),
            's' => write!(line, "{epoch_seconds}"),
            'Z' => write!(line, "UTC"),
            'z' => write!(line, "+0000"),
            'n' => writeln!(line),
            't' => write!(line, "\t"),
            other => write!(line, "{other}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: &str, seconds: u64) -> String {
        let mut line = String::new();
        let time = UNIX_EPOCH + Duration::from_millis(seconds * 1_000 + 7);
        Timestamp::parse(format).expect("a known format").write(time, &mut line);
        line
    }

    #[test]
    fn formats_say_the_same_as_the_date_command() {
        // Each line printed by GNU date: `date -u -d @SECONDS +FORMAT`.
        for (seconds, format, expected) in [
            (0, "%Y-%m-%dT%H:%M:%S", "1970-01-01T00:00:00"),
            (0, "%A %a %j %p %I", "Thursday Thu 001 AM 12"),
            (951_782_400, "%F %j %a", "2000-02-29 060 Tue"),
            (951_868_800, "%F %j %b", "2000-03-01 061 Mar"),
            (4_107_542_400, "%F %j %A", "2100-03-01 060 Monday"),
            (1_709_251_199, "%D %T %R %C%y", "02/29/24 23:59:59 23:59 2024"),
            (1_735_689_599, "%F %j %e %B %h %p %I", "2024-12-31 366 31 December Dec PM 11"),
            (1_735_689_600, "%F %j %e", "2025-01-01 001  1"),
            (1_735_689_600, "%s %Z %z %%%n%t", "1735689600 UTC +0000 %\n\t"),
            (253_402_300_799, "%F %T", "9999-12-31 23:59:59"),
        ] {
            assert_eq!(written(format, seconds), expected, "{seconds} {format}");
        }
    }

    #[test]
    fn named_formats() {
        assert_eq!(written("rfc3339", 1_735_689_600), "2025-01-01T00:00:00.007Z");
        assert_eq!(written("epoch", 1_735_689_600), "1735689600");
        let mut line = String::from("x");
        Timestamp::Off.write(UNIX_EPOCH, &mut line);
        assert_eq!(line, "x");
    }

    #[test]
    fn each_conversion_is_done_and_named_to_those_who_use_another() {
        for conversion in Timestamp::CONVERSIONS.chars().filter(|conversion| *conversion != '%') {
            assert_ne!(written(&format!("%{conversion}"), 0), conversion.to_string());
            assert!(super::super::key::BAD_TIMESTAMP.contains(&format!("%{conversion} ")), "{conversion}");
        }
    }

    #[test]
    fn an_unknown_conversion_is_named() {
        assert_eq!(Timestamp::parse("%Y %Q"), Err('Q'));
        assert_eq!(Timestamp::parse("100%"), Err('%'));
    }
}
