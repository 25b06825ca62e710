//! MQTT's fields as bytes, written once more and independent of the crate, so that a mistake in its encoder cannot
//! hide one in its decoder.

/// A variable byte integer in its shortest form.
pub fn integer(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let digit = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            out.push(digit);
            return out;
        }
        out.push(digit + 128);
    }
}

/// Two bytes of length, and the bytes.
pub fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).expect("a string of at most 65_535 bytes");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A property section: its length, and the properties.
pub fn section(properties: impl AsRef<[u8]>) -> Vec<u8> {
    let properties = properties.as_ref();
    [integer(properties.len()), properties.to_vec()].concat()
}

/// A packet: first byte, Remaining Length, body.
pub fn packet(first_byte: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [vec![first_byte], integer(body.len()), body.to_vec()].concat()
}

/// A User Property.
pub fn user_property(key: &str, value: &str) -> Vec<u8> {
    [vec![0x26], string(key), string(value)].concat()
}

/// The parts of a CONNECT. What is `None` is not there.
#[derive(Clone)]
pub struct Connect<'a> {
    pub name: &'a [u8],
    pub level: u8,
    pub flags: u8,
    /// Properties without their length; MQTT 5 only.
    pub properties: Option<&'a [u8]>,
    pub client_id: &'a [u8],
    /// Will properties without their length.
    pub will_properties: Option<&'a [u8]>,
    /// What follows: Will Topic, Will Payload, User Name, Password, each with its length.
    pub rest: &'a [u8],
}

impl Connect<'static> {
    /// `C4` of the catalogue of attacks: MQTT 3.1.1, Clean Session, Client Identifier "a".
    pub const C4: Self = Self {
        name: b"MQTT",
        level: 4,
        flags: 0x02,
        properties: None,
        client_id: b"a",
        will_properties: None,
        rest: b"",
    };
    /// `C5`: the same in MQTT 5.
    pub const C5: Self = Self { level: 5, properties: Some(b""), ..Self::C4 };
    /// The same in MQTT 3.1.
    pub const C3: Self = Self { name: b"MQIsdp", level: 3, ..Self::C4 };
}

impl Connect<'_> {
    /// The packet.
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = string(self.name);
        body.extend([self.level, self.flags, 0, 60]);
        body.extend(self.properties.map(section).unwrap_or_default());
        body.extend(string(self.client_id));
        body.extend(self.will_properties.map(section).unwrap_or_default());
        body.extend(self.rest);
        packet(0x10, body)
    }
}
