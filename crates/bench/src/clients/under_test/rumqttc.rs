//! rumqttc, as the example `asyncpubsub_v5` of its repository does it: the event loop in one task, the publisher in another.

use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

use super::{Error, KEEP_ALIVE, Meter, Reply, Scenario, Task, check, locked_version, payload};
use crate::clients::{TOPIC_NAME, WINDOW};

pub fn run(task: &Task) -> Result<Reply, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let version = locked_version("rumqttc");
    runtime.block_on(async {
        match task.scenario {
            Scenario::Idle => idle(task, version).await,
            Scenario::ReceiveQos0 => receive(task, QoS::AtMostOnce, version).await,
            Scenario::ReceiveQos1 => receive(task, QoS::AtLeastOnce, version).await,
            Scenario::PublishQos0 => publish(task, QoS::AtMostOnce, version).await,
            Scenario::PublishQos1 => publish(task, QoS::AtLeastOnce, version).await,
            Scenario::PublishQos1Awaited => Err("it tells nobody".into()),
        }
    })
}

/// A client that the sink has taken in.
async fn connect(task: &Task, client_id: String) -> Result<(AsyncClient, EventLoop), Error> {
    let mut options = MqttOptions::new(client_id, task.address.ip().to_string(), task.address.port());
    options.set_keep_alive(KEEP_ALIVE).set_outgoing_inflight_upper_limit(WINDOW);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut event_loop) = AsyncClient::new(options, usize::from(WINDOW));
    while !matches!(event_loop.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
    Ok((client, event_loop))
}

async fn idle(task: &Task, version: String) -> Result<Reply, Error> {
    let mut clients = Vec::with_capacity((task.warm_up + task.count) as usize);
    let mut meter = Meter::start()?;
    for number in 0..task.warm_up + task.count {
        if number == task.warm_up {
            meter = Meter::start()?;
        }
        let (client, mut event_loop) = connect(task, format!("i{number:08}")).await?;
        tokio::spawn(async move { while event_loop.poll().await.is_ok() {} });
        clients.push(client);
    }
    // What is to be done once a connection stands is to be done.
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(meter.reply(version)?)
}

async fn publish(task: &Task, qos: QoS, version: String) -> Result<Reply, Error> {
    let (client, mut event_loop) = connect(task, "publisher".to_owned()).await?;
    publish_some(&client, &mut event_loop, qos, 0, task.warm_up).await?;
    let meter = Meter::start()?;
    publish_some(&client, &mut event_loop, qos, task.warm_up, task.count).await?;
    client.disconnect().await?;
    while !matches!(event_loop.poll().await?, Event::Outgoing(Outgoing::Disconnect)) {}
    Ok(meter.reply(version)?)
}

async fn publish_some(
    client: &AsyncClient,
    event_loop: &mut EventLoop,
    qos: QoS,
    first: u64,
    count: u64,
) -> Result<(), Error> {
    let client = client.clone();
    tokio::spawn(async move {
        for sequence in first..first + count {
            // Should it fail, the loop below never sees the end, and the run is given up.
            if client.publish(TOPIC_NAME, qos, false, payload(sequence).to_vec()).await.is_err() {
                return;
            }
        }
    });
    let mut done = 0;
    while done < count {
        done += match (event_loop.poll().await?, qos) {
            (Event::Outgoing(Outgoing::Publish(_)), QoS::AtMostOnce) => 1,
            (Event::Incoming(Packet::PubAck(_)), QoS::AtLeastOnce) => 1,
            _ => 0,
        };
    }
    Ok(())
}

async fn receive(task: &Task, qos: QoS, version: String) -> Result<Reply, Error> {
    let (client, mut event_loop) = connect(task, "subscriber".to_owned()).await?;
    client.subscribe(TOPIC_NAME, qos).await?;
    let mut meter = Meter::start()?;
    let mut sequence = 0;
    while sequence < task.warm_up + task.count {
        if sequence == task.warm_up {
            meter = Meter::start()?;
        }
        while let Event::Incoming(Packet::Publish(message)) = event_loop.poll().await? {
            check(&message.payload, sequence)?;
            sequence += 1;
            if sequence == task.warm_up || sequence == task.warm_up + task.count {
                break;
            }
        }
    }
    let reply = meter.reply(version)?;
    // The last acknowledgements are to arrive as well.
    client.disconnect().await?;
    while !matches!(event_loop.poll().await?, Event::Outgoing(Outgoing::Disconnect)) {}
    Ok(reply)
}
