//! `rr`: a request, and the first response.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::SystemTime;

use pantala_client::machine::SubscribeRequest;
use pantala_client::{Client, Ended, Received, Status, Subscription};
use pantala_proto::SubscriptionOptions;
use tokio::time::Instant;

use super::connect::{message, while_connected};
use super::publish::single;
use super::subscribe::{everything, is_read, random};
use super::{Failure, complain, printable};
use crate::clients::decision::Decider;
use crate::clients::output::{LocalTime, Moment};
use crate::clients::plan::RequestPlan;

pub(super) async fn run(plan: &RequestPlan) -> Result<(), Failure> {
    let payload = single(&plan.payload)?.unwrap_or_default();
    while_connected(&plan.connection, plan.timeout, async |client| ask(client, plan, payload).await).await
}

async fn ask(client: &Client, plan: &RequestPlan, payload: Vec<u8>) -> Result<(), Failure> {
    let ended = |error: &dyn std::fmt::Display| match client.status() {
        Status::Ended(Some(error)) => Failure::connection(&error, plan.connection.version),
        _ => Failure::other(error.to_string()),
    };
    let stream = everything(client);
    let options = SubscriptionOptions {
        qos: plan.qos,
        no_local: false,
        retain_as_published: plan.retain_as_published,
        retain_handling: plan.retain_handling,
    };
    let subscribe = SubscribeRequest {
        filters: vec![(plan.response_topic.clone(), options)],
        identifier: plan.subscribe_properties.subscription_identifier,
        user_properties: plan.subscribe_properties.user_properties.clone(),
    };
    let request = message(&plan.topic_name, payload, plan.qos, false, &plan.properties);
    let asking = async {
        client.subscribe_only(subscribe).await.map_err(|error| ended(&error))?;
        let asked = Instant::now();
        client.publish(request).await.map_err(|error| ended(&error))?;
        Ok(asked)
    };
    let answered = async { first(stream, plan).await.map_err(|error| ended(&error)) };
    // Both at once: messages may come before SUBACK, and reading would wait for somebody to take them.
    let (asked, answer) = tokio::try_join!(biased; asking, answered)?;
    let Answer { mut response, at, is_printed } = answer;
    if is_printed {
        let stdout = io::stdout();
        let mut printer = plan.output.printer(stdout.is_terminal(), LocalTime::system());
        let mut line = Vec::new();
        if plan.latency {
            let latency = at.saturating_duration_since(asked);
            line.extend_from_slice(format!("Latency {:.6} s\n", latency.as_secs_f64()).as_bytes());
        }
        if let Err(error) = printer.print(&printable(&response, Moment::from(SystemTime::now())), &mut line)
            && !plan.connection.quiet
        {
            complain(&format!("Error: {error}"));
        }
        let mut stdout = stdout.lock();
        // Whoever does not read it has seen enough.
        is_read(stdout.write_all(&line).and_then(|()| stdout.flush()))?;
    }
    response.acknowledge();
    Ok(())
}

/// What ends it.
struct Answer {
    response: Received,
    at: Instant,
    is_printed: bool,
}

/// Takes messages up to the response; nobody takes those behind it.
async fn first(mut stream: Subscription, plan: &RequestPlan) -> Result<Answer, Ended> {
    let mut decider = Decider::new(plan.wanted.clone(), random());
    loop {
        let mut response = stream.recv().await?;
        let decision = decider.decide(response.topic_name(), response.retain());
        if decision.print || decision.end {
            return Ok(Answer { response, at: Instant::now(), is_printed: decision.print });
        }
        response.acknowledge();
    }
}
