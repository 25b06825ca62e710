//! AUTH and enhanced authentication.

use crate::case::Case;
use crate::peer::{Outcome, Peer, VIOLATION};
use crate::rules::label;
use crate::scram::{Exchange, METHOD};
use crate::wire::{self, Answer, Packet, Property, Value, packet, prop, text};
use crate::{ensure, fail, skip};

/// An unknown Authentication Method: nothing, or CONNACK 0x8C or 0x87, then the end.
pub fn unknown_method_is_refused(t: &Case<'_>) -> Outcome {
    for data in [None, Some((prop::AUTHENTICATION_DATA, Value::Binary(b"data".to_vec())))] {
        let mut connect = t.hello("a").with(text(prop::AUTHENTICATION_METHOD, "PANTALA-NO-SUCH-METHOD"));
        connect.properties.extend(data);
        t.send_first("a", connect.encode())?.expect_refused(&[0x8C, 0x87], &[])?;
    }
    Ok(())
}

/// No method in CONNECT: no AUTH from the server, no method in CONNACK; and AUTH from the client is an error.
pub fn none_without_a_method(t: &Case<'_>) -> Outcome {
    // Anything but CONNACK fails, AUTH too.
    let a = t.connect("a")?;
    let has = |id| a.connack.as_ref().is_some_and(|c| c.property(id).is_some());
    ensure!(!has(prop::AUTHENTICATION_METHOD), "CONNACK with an Authentication Method");
    ensure!(!has(prop::AUTHENTICATION_DATA), "CONNACK with Authentication Data");
    for code in [0x18, 0x19] {
        let mut a = t.connect("a")?;
        a.send(wire::auth(code, &[text(prop::AUTHENTICATION_METHOD, METHOD)]));
        label(&format!("AUTH 0x{code:02X}"), a.expect_close(&[VIOLATION, &[0x8C, 0x87]].concat()))?;
    }
    Ok(())
}

/// AUTH flags are 0000.
pub fn auth_flags(t: &Case<'_>) -> Outcome {
    for first in [0xF1, 0xF2, 0xF4, 0xF8] {
        let mut a = t.connect("a")?;
        a.send(packet(first, &[]));
        label(&format!("AUTH 0x{first:02X}"), a.expect_close(VIOLATION))?;
    }
    Ok(())
}

/// AUTH with a code that is not listed closes the connection.
pub fn wrong_auth_codes(t: &Case<'_>) -> Outcome {
    for code in [0x01, 0x17, 0x80, 0xFF] {
        let mut a = t.connect("a")?;
        a.send(wire::auth(code, &[text(prop::AUTHENTICATION_METHOD, METHOD)]));
        label(&format!("AUTH 0x{code:02X}"), a.expect_close(&[VIOLATION, &[0x8C, 0x87]].concat()))?;
    }
    Ok(())
}

/// The listener with SCRAM-SHA-256 and a user of it.
fn scram<'a>(t: &Case<'a>) -> Outcome<(Case<'a>, String, String)> {
    match &t.options().scram_target {
        Some(target) => Ok((t.at(&target.address), target.user.clone(), target.password.clone())),
        None => skip!("needs a listener with SCRAM-SHA-256, named by --scram-target"),
    }
}

fn method_and(data: &[u8]) -> [Property; 2] {
    [text(prop::AUTHENTICATION_METHOD, METHOD), (prop::AUTHENTICATION_DATA, Value::Binary(data.to_vec()))]
}

/// The Authentication Data of a packet that has to repeat the method.
fn data_of(what: &str, properties: &[Property]) -> Outcome<Vec<u8>> {
    let find = |id| properties.iter().find(|(i, _)| *i == id).map(|(_, v)| v);
    ensure!(
        find(prop::AUTHENTICATION_METHOD) == Some(&Value::Text(METHOD.as_bytes().to_vec())),
        "{what} does not repeat the Authentication Method: {:?}",
        find(prop::AUTHENTICATION_METHOD)
    );
    Ok(match find(prop::AUTHENTICATION_DATA) {
        Some(Value::Binary(data)) => data.clone(),
        _ => Vec::new(),
    })
}

/// What an exchange of AUTH packets ended with.
enum End {
    /// CONNACK 0x00, or AUTH 0x00 when authenticating again, and the server knows the password too.
    Success,
    /// CONNACK with an error, or the end of the connection.
    Refused,
}

/// Carries on an exchange whose first message was sent, until the broker says how it ended.
fn carry_on(a: &mut Peer, exchange: &mut Exchange) -> Outcome<End> {
    let mut verified = false;
    loop {
        match a.event()? {
            crate::peer::Event::Packet(Packet::Auth(answer)) if answer.code() == 0x18 => {
                let data = data_of("AUTH", &answer.properties)?;
                let reply = if data.starts_with(b"v=") {
                    exchange.verify(&data).map_err(crate::peer::Stop::Fail)?;
                    verified = true;
                    Vec::new()
                } else {
                    exchange.client_final(&data).map_err(crate::peer::Stop::Fail)?
                };
                a.send(wire::auth(0x18, &method_and(&reply)));
            }
            crate::peer::Event::Packet(Packet::Auth(Answer { properties, .. })) => {
                let data = data_of("AUTH 0x00", &properties)?;
                return finish(exchange, &data, verified);
            }
            crate::peer::Event::Packet(Packet::ConnAck(connack)) if connack.code == 0 => {
                let data = data_of("CONNACK", &connack.properties)?;
                a.connack = Some(connack);
                return finish(exchange, &data, verified);
            }
            crate::peer::Event::Packet(Packet::ConnAck(connack)) => {
                ensure!(matches!(connack.code, 0x80 | 0x86 | 0x87 | 0x8C), "refused with 0x{:02X}", connack.code);
                a.expect_close(&[])?;
                return Ok(End::Refused);
            }
            crate::peer::Event::Packet(Packet::Disconnect(answer)) => {
                ensure!(a.connack.is_some(), "DISCONNECT before CONNACK");
                ensure!(matches!(answer.code(), 0x80 | 0x87 | 0x8C), "DISCONNECT 0x{:02X}", answer.code());
                a.expect_close(&[])?;
                return Ok(End::Refused);
            }
            crate::peer::Event::Closed => return Ok(End::Refused),
            other => fail!("{other:?} during authentication"),
        }
    }
}

fn finish(exchange: &Exchange, data: &[u8], verified: bool) -> Outcome<End> {
    if !verified {
        exchange.verify(data).map_err(crate::peer::Stop::Fail)?;
    }
    Ok(End::Success)
}

/// Connects by SCRAM-SHA-256; `None` if it was refused.
fn connect_by_scram(
    t: &Case<'_>,
    name: &str,
    maximum: Option<u32>,
    user: &str,
    password: &str,
) -> Outcome<Option<Peer>> {
    let mut exchange = Exchange::new(user, password, &format!("{}nonce", t.id(name)));
    let mut connect = t.hello(name);
    connect.properties.extend(method_and(&exchange.client_first()));
    let mut a = t.dial(name)?;
    if let Some(maximum) = maximum {
        connect.properties.push((prop::MAXIMUM_PACKET_SIZE, Value::FourByte(maximum)));
        a.packet_bytes_max = maximum as usize;
    }
    a.send(connect.encode());
    Ok(match carry_on(&mut a, &mut exchange)? {
        End::Success => Some(a),
        End::Refused => None,
    })
}

/// The exchange succeeds: AUTH 0x18 from the server, the method in every AUTH and in CONNACK, and the connection works.
pub fn scram_succeeds(t: &Case<'_>) -> Outcome {
    let (t, user, password) = scram(t)?;
    let Some(mut a) = connect_by_scram(&t, "a", None, &user, &password)? else {
        fail!("refused with the right password");
    };
    a.subscribe(t.topic("x"), 1)?;
    a.publish(t.topic("x"), "m", 1)?;
    a.receive(t.topic("x"), "m")?;
    Ok(())
}

/// A wrong password, an unknown user, a broken message, another method midway: refused, and closed.
pub fn scram_rejects_a_wrong_password(t: &Case<'_>) -> Outcome {
    let (t, user, password) = scram(t)?;
    ensure!(connect_by_scram(&t, "a", None, &user, "wrong")?.is_none(), "accepted with a wrong password");
    ensure!(connect_by_scram(&t, "b", None, "nobody", &password)?.is_none(), "accepted for an unknown user");
    let mut a = t.dial("c")?;
    let mut connect = t.hello("c");
    connect.properties.extend(method_and(b"this is no SCRAM message"));
    a.send(connect.encode());
    a.expect_refused(&[0x80, 0x81, 0x82, 0x83, 0x86, 0x87, 0x8C], &[])?;
    // Between CONNECT and CONNACK only AUTH and DISCONNECT may come.
    let exchange = Exchange::new(&user, &password, &t.id("nonce"));
    let mut a = t.dial("d")?;
    let mut connect = t.hello("d");
    connect.properties.extend(method_and(&exchange.client_first()));
    a.send(connect.encode());
    match a.next("AUTH")? {
        Packet::Auth(_) => {}
        other => fail!("{other} instead of AUTH"),
    }
    a.send(wire::Publish::new(t.topic("x"), "early", 0).encode(t.version));
    a.expect_refused(&[0x80, 0x81, 0x82, 0x83, 0x87], &[])?;
    Ok(())
}

/// AUTH packets are no larger than the client allows.
pub fn auth_fits(t: &Case<'_>) -> Outcome {
    let (t, user, password) = scram(t)?;
    // Large enough for the messages of the mechanism and CONNACK, not for long explanations.
    for maximum in [400, 250] {
        connect_by_scram(&t, "a", Some(maximum), &user, &password)?;
        connect_by_scram(&t, "b", Some(maximum), &user, "wrong")?;
    }
    Ok(())
}

/// Authenticating again on a live connection: the method in every AUTH, AUTH 0x00 at the end, the Session untouched.
pub fn reauthentication(t: &Case<'_>) -> Outcome {
    let (t, user, password) = scram(t)?;
    let Some(mut a) = connect_by_scram(&t, "a", None, &user, &password)? else {
        fail!("refused with the right password");
    };
    a.subscribe(t.topic("x"), 1)?;
    let mut exchange = Exchange::new(&user, &password, &t.id("again"));
    a.send(wire::auth(0x19, &method_and(&exchange.client_first())));
    match carry_on(&mut a, &mut exchange)? {
        End::Success => {}
        End::Refused => fail!("the second authentication was refused with the right password"),
    }
    a.publish(t.topic("x"), "m", 1)?;
    a.receive(t.topic("x"), "m")?;
    Ok(())
}

/// A second authentication that fails ends the connection.
pub fn failed_reauthentication(t: &Case<'_>) -> Outcome {
    let (t, user, password) = scram(t)?;
    let Some(mut a) = connect_by_scram(&t, "a", None, &user, &password)? else {
        fail!("refused with the right password");
    };
    let mut exchange = Exchange::new(&user, "wrong", &t.id("again"));
    a.send(wire::auth(0x19, &method_and(&exchange.client_first())));
    match carry_on(&mut a, &mut exchange)? {
        End::Refused => Ok(()),
        End::Success => fail!("a second authentication with a wrong password succeeded"),
    }
}
