//! Numbers as C's printf writes them.

use std::io::Write as _;

/// Digits, sign, point and exponent of any f64 in the forms used here: `%.15g`, `%.17g`.
const GENERAL_BYTES_MAX: usize = 32;

/// A number as `%.{digits}g` writes it, on the stack.
pub struct General {
    bytes: [u8; GENERAL_BYTES_MAX],
    len: usize,
}

impl General {
    /// Writes a finite number with 1 to 17 significant digits.
    pub fn new(value: f64, digits: usize) -> Self {
        let mut this = Self { bytes: [0; GENERAL_BYTES_MAX], len: 0 };
        let mut buffer = [0_u8; GENERAL_BYTES_MAX];
        let scientific = {
            let mut rest = &mut buffer[..];
            // -1.2345678901234567e-308 has 24 bytes.
            drop(write!(rest, "{value:.*e}", digits - 1));
            let unused = rest.len();
            &buffer[..GENERAL_BYTES_MAX - unused]
        };
        let (mantissa, exponent) = match scientific.iter().position(|byte| *byte == b'e') {
            Some(at) => (&scientific[..at], std::str::from_utf8(&scientific[at + 1..]).ok()),
            None => (scientific, None),
        };
        let exponent: i32 = exponent.and_then(|text| text.parse().ok()).unwrap_or(0);
        let (negative, mantissa) = match mantissa.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        if negative {
            this.push(b'-');
        }
        let mut significant = [0_u8; GENERAL_BYTES_MAX];
        let mut count = 0;
        for byte in mantissa.iter().filter(|byte| byte.is_ascii_digit()) {
            significant[count] = *byte;
            count += 1;
        }
        while count > 1 && significant[count - 1] == b'0' {
            count -= 1;
        }
        let significant = &significant[..count];
        if exponent < -4 || exponent >= i32::try_from(digits).unwrap_or(i32::MAX) {
            this.push(significant[0]);
            if count > 1 {
                this.push(b'.');
                this.extend(&significant[1..]);
            }
            this.push(b'e');
            this.push(if exponent < 0 { b'-' } else { b'+' });
            let exponent = exponent.unsigned_abs();
            if exponent >= 100 {
                this.push(b'0' + (exponent / 100) as u8);
            }
            this.push(b'0' + (exponent / 10 % 10) as u8);
            this.push(b'0' + (exponent % 10) as u8);
        } else if exponent < 0 {
            this.extend(b"0.");
            for _ in exponent..-1 {
                this.push(b'0');
            }
            this.extend(significant);
        } else {
            let whole = exponent.unsigned_abs() as usize + 1;
            for place in 0..whole.max(count) {
                if place == whole {
                    this.push(b'.');
                }
                this.push(significant.get(place).copied().unwrap_or(b'0'));
            }
        }
        this
    }

    fn push(&mut self, byte: u8) {
        // Longer than any f64 gets here; see the test.
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push(*byte);
        }
    }

    /// Its characters.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The number that the characters mean.
    pub fn value(&self) -> f64 {
        std::str::from_utf8(self.bytes()).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
    }
}

/// Appends an unsigned number in decimal.
pub fn put_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an unsigned number in decimal with leading zeros.
pub fn put_padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    put_decimal(value, out);
    let missing = width.saturating_sub(out.len() - start);
    out.splice(start..start, std::iter::repeat_n(b'0', missing));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_c() {
        // What glibc's printf writes.
        for (value, digits, text) in [
            (0.0, 15, "0"),
            (-0.0, 15, "-0"),
            (1.0, 15, "1"),
            (100.0, 15, "100"),
            (1e15, 15, "1e+15"),
            (123_456_789_012_345.0, 15, "123456789012345"),
            (0.1, 15, "0.1"),
            (0.1, 17, "0.10000000000000001"),
            (0.0001, 15, "0.0001"),
            (1e-7, 15, "1e-07"),
            (1.5e300, 15, "1.5e+300"),
            (-123.456, 15, "-123.456"),
            (f64::MAX, 17, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, 17, "2.2250738585072014e-308"),
            (-5e-324, 17, "-4.9406564584124654e-324"),
            (1_234_567_890_123_456_789.0, 17, "1.2345678901234568e+18"),
        ] {
            let number = General::new(value, digits);
            assert_eq!(String::from_utf8_lossy(number.bytes()), text);
        }
    }

    #[test]
    fn integers_are_padded() {
        let mut out = Vec::new();
        put_decimal(u64::MAX, &mut out);
        put_padded(7, 3, &mut out);
        put_padded(1234, 3, &mut out);
        assert_eq!(out, b"184467440737095516150071234");
    }
}
