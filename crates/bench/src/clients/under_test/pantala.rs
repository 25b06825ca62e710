//! Our own client, as its documentation says.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pantala_client::error::PublishError;
use pantala_client::{Client, Message, Options, Overflow, QoS, Subscribe};
use tokio::task::LocalSet;

use super::{Error, KEEP_ALIVE, Meter, Reply, Scenario, Task, check, payload};
use crate::clients::{TOPIC_NAME, WINDOW};

pub fn run(task: &Task) -> Result<Reply, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    runtime.block_on(async {
        match task.scenario {
            Scenario::Idle => idle(task, version).await,
            Scenario::ReceiveQos0 => receive(task, QoS::AtMostOnce, version).await,
            Scenario::ReceiveQos1 => receive(task, QoS::AtLeastOnce, version).await,
            Scenario::PublishQos0 | Scenario::PublishQos1 | Scenario::PublishQos1Awaited => {
                publish(task, version).await
            }
        }
    })
}

fn options(task: &Task, client_id: &str) -> Result<Options, Error> {
    let url = format!("mqtt://{}", task.address);
    Ok(Options::new(&url)?.client_id(client_id).keep_alive(KEEP_ALIVE))
}

async fn idle(task: &Task, version: String) -> Result<Reply, Error> {
    let mut clients = Vec::with_capacity((task.warm_up + task.count) as usize);
    let mut meter = Meter::start()?;
    for number in 0..task.warm_up + task.count {
        if number == task.warm_up {
            meter = Meter::start()?;
        }
        clients.push(Client::connect(options(task, &format!("i{number:08}"))?).await?);
    }
    // What is to be done once a connection stands is to be done.
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(meter.reply(version)?)
}

async fn publish(task: &Task, version: String) -> Result<Reply, Error> {
    let client = Client::connect(options(task, "publisher")?).await?;
    let topic_name = Arc::from(TOPIC_NAME);
    publish_some(task.scenario, &client, &topic_name, 0, task.warm_up).await?;
    let meter = Meter::start()?;
    publish_some(task.scenario, &client, &topic_name, task.warm_up, task.count).await?;
    client.disconnect().await;
    Ok(meter.reply(version)?)
}

async fn publish_some(
    scenario: Scenario,
    client: &Client,
    topic_name: &Arc<str>,
    first: u64,
    count: u64,
) -> Result<(), PublishError> {
    let message = |sequence| Message::new(topic_name.clone(), Bytes::copy_from_slice(&payload(sequence)));
    match scenario {
        Scenario::PublishQos1 => {
            for sequence in first..first + count {
                let message = message(sequence).qos(QoS::AtLeastOnce);
                while let Err(error) = client.try_publish(&message) {
                    match error {
                        PublishError::QueueFull => client.settled().await?,
                        error => return Err(error),
                    }
                }
            }
            client.settled().await
        }
        Scenario::PublishQos1Awaited => {
            let next = std::rc::Rc::new(Cell::new(first));
            let local = LocalSet::new();
            let publishers: Vec<_> = (0..WINDOW)
                .map(|_| {
                    let (client, topic_name, next) = (client.clone(), topic_name.clone(), next.clone());
                    local.spawn_local(async move {
                        while next.get() < first + count {
                            let payload = Bytes::copy_from_slice(&payload(next.get()));
                            next.set(next.get() + 1);
                            client.publish(Message::new(topic_name.clone(), payload).qos(QoS::AtLeastOnce)).await?;
                        }
                        Ok(())
                    })
                })
                .collect();
            local
                .run_until(async {
                    for publisher in publishers {
                        publisher.await.unwrap_or(Err(PublishError::Ended))?;
                    }
                    Ok(())
                })
                .await
        }
        _ => {
            for sequence in first..first + count {
                client.publish(message(sequence)).await?;
            }
            client.settled().await
        }
    }
}

async fn receive(task: &Task, qos: QoS, version: String) -> Result<Reply, Error> {
    let client = Client::connect(options(task, "subscriber")?).await?;
    // The broker does not drop what is not read, and neither is to be dropped here.
    let mut stream = client.subscribe(Subscribe::new(TOPIC_NAME, qos).overflow(Overflow::Wait)).await?;
    for sequence in 0..task.warm_up {
        check(stream.recv().await?.payload(), sequence)?;
    }
    let meter = Meter::start()?;
    for sequence in task.warm_up..task.warm_up + task.count {
        check(stream.recv().await?.payload(), sequence)?;
    }
    stream.acknowledge();
    let reply = meter.reply(version)?;
    // The last acknowledgements are to arrive as well.
    client.disconnect().await;
    Ok(reply)
}
