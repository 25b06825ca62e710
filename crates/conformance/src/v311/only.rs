//! What MQTT 3.1.1 alone demands: return codes of CONNACK, and the rule for empty Client Identifiers.

use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, payloads};
use crate::wire::Connect;

/// An unsupported protocol level gets CONNACK 0x01 before the connection is closed.
pub fn unsupported_level_gets_connack_1(t: &Case<'_>) -> Outcome {
    // A server of 5.0 as well answers in the form of the version it takes the level for; one that is no level of
    // any version is answered in the form of 3.1.1 or, by a server that puts 5.0 first, of 5.0.
    let connect = Connect { level: 2, ..t.hello("a") };
    let as_v311 = t.send_first("a", connect.encode())?.expect_refused(&[], &[1]);
    let code = match as_v311 {
        Ok(code) => code,
        Err(why) => {
            let mut a = t.dial("a")?;
            a.version = crate::wire::Version::V5;
            a.send(connect.encode());
            a.expect_refused(&[0x84], &[]).map_err(|_| why)?
        }
    };
    ensure!(code.is_some(), "closed without the CONNACK that the statement demands");
    Ok(())
}

/// A zero-length Client Identifier with CleanSession 0 gets CONNACK 0x02, then the connection is closed.
pub fn zero_length_id_needs_clean_session(t: &Case<'_>) -> Outcome {
    let connect = Connect { client_id: Vec::new(), ..t.hello("a").clean(false) };
    let code = t.send_first("a", connect.encode())?.expect_refused(&[], &[2])?;
    ensure!(code == Some(2), "closed without CONNACK 0x02");
    Ok(())
}

/// A refusing CONNACK has Session Present 0 and is followed by closing, also when a Session of that client exists.
pub fn refusing_connack(t: &Case<'_>) -> Outcome {
    t.resume("a", false)?.disconnect()?;
    let connect = Connect { client_id: Vec::new(), ..t.hello("a").clean(false) };
    t.send_first("a", connect.encode())?.expect_refused(&[], &[2])?;
    // The same client, with a level nobody speaks; the Session is not touched.
    let connect = Connect { level: 2, ..t.lasting("a") };
    let _ = t.send_first("a", connect.encode())?.expect_refused(&[0x84], &[1]);
    t.resume("a", true)?.disconnect()
}

/// Many messages wait for a Session whose client is away; all of them come, those of the right topics only.
pub fn waiting_messages(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 1)?;
    s.cut()?;
    let mut p = t.connect("p")?;
    let expected: Vec<String> = (0..30).map(|i| i.to_string()).collect();
    for text in &expected {
        p.publish(&topic, text, 1)?;
        p.publish(t.topic("y"), "other", 1)?;
    }
    let got = t.resume("s", true)?.collect(t, &mut p)?;
    ensure!(payloads(&got) == expected, "waiting messages {:?}", payloads(&got));
    Ok(())
}
