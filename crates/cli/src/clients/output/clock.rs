//! Local time, and the conversions of C's strftime as glibc makes them in the "C" locale.

use std::io::Write as _;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Moment;
use super::number::put_padded;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
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

/// A time zone that remembers the last second it was asked about: messages come many to the second.
#[derive(Debug, Clone)]
pub struct LocalTime {
    zone: TimeZone,
    /// The second that `civil`, `offset_seconds` and `abbreviation` are of.
    seconds: Option<i64>,
    civil: DateTime,
    offset_seconds: i32,
    abbreviation: String,
}

impl LocalTime {
    /// The time zone of `TZ`, else of the system.
    pub fn system() -> Self {
        Self::new(TimeZone::system())
    }

    /// A time zone by its name, or by POSIX rules as in `TZ`. None if nobody knows it.
    pub fn named(name: &str) -> Option<Self> {
        TimeZone::get(name).or_else(|_| TimeZone::posix(name)).ok().map(Self::new)
    }

    fn new(zone: TimeZone) -> Self {
        Self { zone, seconds: None, civil: DateTime::ZERO, offset_seconds: 0, abbreviation: String::new() }
    }

    fn look_up(&mut self, moment: Moment) {
        if self.seconds == Some(moment.seconds) {
            return;
        }
        // A time that no calendar has becomes 1970.
        let timestamp = Timestamp::from_second(moment.seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let information = self.zone.to_offset_info(timestamp);
        let offset = information.offset();
        self.civil = offset.to_datetime(timestamp);
        self.offset_seconds = offset.seconds();
        self.abbreviation.clear();
        self.abbreviation.push_str(information.abbreviation());
        self.seconds = Some(moment.seconds);
    }

    /// Appends date and time: `2016-08-10T09:47:38+0100`; with microseconds if wanted.
    pub(crate) fn put_iso(&mut self, moment: Moment, with_microseconds: bool, out: &mut Vec<u8>) {
        self.put(b'F', moment, out);
        out.push(b'T');
        self.put(b'T', moment, out);
        if with_microseconds {
            out.push(b'.');
            put_padded(u64::from(moment.nanoseconds / 1_000), 6, out);
        }
        self.put(b'z', moment, out);
    }

    /// Appends what strftime makes of `%` and `conversion`. One that it does not know is written as it stands.
    pub(crate) fn put(&mut self, conversion: u8, moment: Moment, out: &mut Vec<u8>) {
        self.look_up(moment);
        let civil = self.civil;
        let date = civil.date();
        let weekday = usize::from(date.weekday().to_sunday_zero_offset().unsigned_abs());
        let year_day = usize::from(date.day_of_year().unsigned_abs());
        let (year, month) = (u64::from(civil.year().unsigned_abs()), usize::from(civil.month().unsigned_abs()));
        let hour = u64::from(civil.hour().unsigned_abs());
        let hour_of_12 = if hour % 12 == 0 { 12 } else { hour % 12 };
        let two = |number: i8, out: &mut Vec<u8>| put_padded(u64::from(number.unsigned_abs()), 2, out);
        let blank = |number: u64, out: &mut Vec<u8>| {
            if number < 10 {
                out.push(b' ');
            }
            put_padded(number, 1, out);
        };
        let mut several = |conversions: &[u8], out: &mut Vec<u8>| {
            for part in conversions {
                if part.is_ascii_alphabetic() { self.put(*part, moment, out) } else { out.push(*part) }
            }
        };
        match conversion {
            b'a' => out.extend_from_slice(&DAYS[weekday].as_bytes()[..3]),
            b'A' => out.extend_from_slice(DAYS[weekday].as_bytes()),
            b'b' | b'h' => out.extend_from_slice(&MONTHS[month - 1].as_bytes()[..3]),
            b'B' => out.extend_from_slice(MONTHS[month - 1].as_bytes()),
            b'c' => several(b"a b e T Y", out),
            b'C' => put_padded(year / 100, 2, out),
            b'd' => two(civil.day(), out),
            b'D' | b'x' => several(b"m/d/y", out),
            b'e' => blank(u64::from(civil.day().unsigned_abs()), out),
            b'F' => several(b"Y-m-d", out),
            b'g' => put_padded(u64::from(date.iso_week_date().year().unsigned_abs()) % 100, 2, out),
            b'G' => put_padded(u64::from(date.iso_week_date().year().unsigned_abs()), 4, out),
            b'H' => put_padded(hour, 2, out),
            b'I' => put_padded(hour_of_12, 2, out),
            b'j' => put_padded(year_day as u64, 3, out),
            b'k' => blank(hour, out),
            b'l' => blank(hour_of_12, out),
            b'm' => two(civil.month(), out),
            b'M' => two(civil.minute(), out),
            b'n' => out.push(b'\n'),
            b'p' => out.extend_from_slice(if hour < 12 { b"AM" } else { b"PM" }),
            b'P' => out.extend_from_slice(if hour < 12 { b"am" } else { b"pm" }),
            b'r' => several(b"I:M:S p", out),
            b'R' => several(b"H:M", out),
            b's' => drop(write!(out, "{}", moment.seconds)),
            b'S' => two(civil.second(), out),
            b't' => out.push(b'\t'),
            b'T' | b'X' => several(b"H:M:S", out),
            b'u' => put_padded(if weekday == 0 { 7 } else { weekday as u64 }, 1, out),
            // Weeks of the year, from the first Sunday and from the first Monday on.
            b'U' => put_padded(((year_day - 1 + 7 - weekday) / 7) as u64, 2, out),
            b'W' => put_padded(((year_day - 1 + 7 - (weekday + 6) % 7) / 7) as u64, 2, out),
            b'V' => two(date.iso_week_date().week(), out),
            b'w' => put_padded(weekday as u64, 1, out),
            b'y' => put_padded(year % 100, 2, out),
            b'Y' => put_padded(year, 1, out),
            b'z' => {
                let minutes = u64::from(self.offset_seconds.unsigned_abs()) / 60;
                out.push(if self.offset_seconds < 0 { b'-' } else { b'+' });
                put_padded(minutes / 60 * 100 + minutes % 60, 4, out);
            }
            b'Z' => out.extend_from_slice(self.abbreviation.as_bytes()),
            b'%' => out.push(b'%'),
            _ => out.extend_from_slice(&[b'%', conversion]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(zone: &str, seconds: i64, conversions: &str) -> String {
        let mut zone = LocalTime::named(zone).expect("the zone is known");
        let mut out = Vec::new();
        for conversion in conversions.bytes() {
            zone.put(conversion, Moment { seconds, nanoseconds: 5 }, &mut out);
            out.push(b'|');
        }
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn conversions_are_those_of_glibc() {
        let all = "aAbBcCdDeEFgGhHIjklmMnpPqrRsStTuUvVwWxXyYzZ+%";
        assert_eq!(
            shown("EST5EDT,M3.2.0,M11.1.0", 1_795_639_798, all),
            "Wed|Wednesday|Nov|November|Wed Nov 25 15:49:58 2026|20|25|11/25/26|25|%E|2026-11-25|26|2026|Nov|15|03|329|15| 3|\
             11|49|\n|PM|pm|%q|03:49:58 PM|15:49|1795639798|58|\t|15:49:58|3|47|%v|48|3|47|11/25/26|15:49:58|26|2026|-0500|EST|%+|%|"
        );
        assert_eq!(shown("IST-5:30", 1_795_639_798, "IjkpzZ"), "02|330| 2|AM|+0530|IST|");
        // Weeks around a new year.
        assert_eq!(shown("UTC0", 1_609_459_200, "FUVWgGuwj"), "2021-01-01|00|53|00|20|2020|5|5|001|");
        assert_eq!(shown("UTC0", 1_640_995_199, "FUVWgGuwj"), "2021-12-31|52|52|52|21|2021|5|5|365|");
        assert_eq!(shown("UTC0", 1_672_531_200, "FUVWgGuwj"), "2023-01-01|01|52|00|22|2022|7|0|001|");
    }

    #[test]
    fn the_remembered_second_is_forgotten_with_the_next() {
        let mut zone = LocalTime::named("UTC0").expect("UTC is known");
        let mut out = Vec::new();
        for seconds in [0, 0, 1, i64::MAX] {
            zone.put_iso(Moment { seconds, nanoseconds: 1_999 }, true, &mut out);
            out.push(b' ');
        }
        let first = "1970-01-01T00:00:00.000001+0000";
        let expected = format!("{first} {first} 1970-01-01T00:00:01.000001+0000 {first} ");
        assert_eq!(String::from_utf8(out).expect("it is text"), expected);
    }
}
