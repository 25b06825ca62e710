//! `rr`: a request, and the first response.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::SystemTime;

use pantala_client::machine::SubscribeRequest;
use pantala_client::{Client, Status};
use pantala_proto::SubscriptionOptions;
use tokio::time::Instant;

use super::connect::{message, while_connected};
use super::publish::single;
use super::subscribe::{everything, random};
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
    let mut stream = everything(client);
    let options = SubscriptionOptions {
        qos: plan.qos,
        no_local: false,
        retain_as_published: plan.retain_as_published,
        retain_handling: plan.retain_handling,
    };
    let request = SubscribeRequest {
        filters: vec![(plan.response_topic.clone(), options)],
        identifier: plan.subscribe_properties.subscription_identifier,
        user_properties: plan.subscribe_properties.user_properties.clone(),
    };
    client.subscribe_only(request).await.map_err(|error| ended(&error))?;
    let asked = Instant::now();
    let request = message(&plan.topic_name, payload, plan.qos, false, &plan.properties);
    client.publish(request).await.map_err(|error| ended(&error))?;
    let mut decider = Decider::new(plan.wanted.clone(), random());
    loop {
        let mut response = stream.recv().await.map_err(|error| ended(&error))?;
        let latency = asked.elapsed();
        let decision = decider.decide(response.topic_name(), response.retain());
        if decision.print {
            let stdout = io::stdout();
            let mut printer = plan.output.printer(stdout.is_terminal(), LocalTime::system());
            let mut line = Vec::new();
            if plan.latency {
                line.extend_from_slice(format!("Latency {:.6} s\n", latency.as_secs_f64()).as_bytes());
            }
            if let Err(error) = printer.print(&printable(&response, Moment::from(SystemTime::now())), &mut line)
                && !plan.connection.quiet
            {
                complain(&format!("Error: {error}"));
            }
            // Whoever does not read it has seen enough.
            drop(stdout.lock().write_all(&line));
        }
        response.acknowledge();
        if decision.print || decision.end {
            return Ok(());
        }
    }
}
