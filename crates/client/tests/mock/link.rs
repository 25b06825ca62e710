//! The link that cuts.

use pantala_client::mock::{CutAt, CutEnding, Cuts, CuttingLink, Direction, MockBroker};

use crate::raw::{self, Raw};

/// A link, and a scripted broker behind it.
async fn link(cuts: Cuts) -> (CuttingLink, MockBroker) {
    let broker = MockBroker::listen().await;
    (CuttingLink::to(broker.address(), cuts).await, broker)
}

#[tokio::test]
async fn without_cuts_everything_passes_and_so_does_the_end() {
    let (link, broker) = link(Cuts::None).await;
    let mut client = Raw::open(link.url()).await;
    let mut peer = broker.accept().await;
    let much = vec![7; 1_000_000];
    let ours = much.clone();
    let reading = tokio::spawn(async move {
        client.expect(&ours).await;
        client.send(b"bye").await;
        client
    });
    peer.send_bytes(&much).await;
    assert_eq!(peer.expect_bytes(3).await, b"bye");
    drop(reading.await.unwrap());
    peer.expect_end().await;
    assert_eq!((link.connections(), link.cut()), (1, 0));
}

#[tokio::test]
async fn a_close_comes_after_exactly_the_chosen_bytes() {
    let at = |bytes, direction| CutAt { bytes, direction, ending: CutEnding::Close };
    let cuts = vec![at(5, Direction::FromClient), at(3, Direction::FromBroker), at(0, Direction::FromBroker)];
    let (link, broker) = link(Cuts::First(cuts)).await;

    let mut client = Raw::open(link.url()).await;
    client.send(b"123456789").await;
    let mut peer = broker.accept().await;
    assert_eq!(peer.expect_bytes(5).await, b"12345");
    peer.expect_end().await;
    assert_eq!(client.rest().await, (vec![], false));

    let mut client = Raw::open(link.url()).await;
    let mut peer = broker.accept().await;
    client.send(b"up").await;
    assert_eq!(peer.expect_bytes(2).await, b"up");
    peer.send_bytes(b"down").await;
    assert_eq!(client.rest().await, (b"dow".to_vec(), false));

    let mut client = Raw::open(link.url()).await;
    assert_eq!(client.rest().await, (vec![], false));
    drop(broker.accept().await);

    // No more are cut.
    let mut client = Raw::open(link.url()).await;
    client.send(b"123456789").await;
    assert_eq!(broker.accept().await.expect_bytes(9).await, b"123456789");
    assert_eq!((link.connections(), link.cut()), (4, 3));
}

#[tokio::test]
async fn half_a_write_passes_or_a_reset_comes() {
    let at = |ending| CutAt { bytes: 4, direction: Direction::FromClient, ending };
    let (link, broker) = link(Cuts::First(vec![at(CutEnding::HalfWrite), at(CutEnding::Reset)])).await;
    let mut client = Raw::open(link.url()).await;
    client.send(b"123456").await;
    let mut peer = broker.accept().await;
    assert_eq!(peer.expect_bytes(3).await, b"123");
    peer.expect_end().await;

    let mut client = Raw::open(link.url()).await;
    client.send(b"123456").await;
    assert_eq!(client.rest().await, (vec![], true));
}

#[tokio::test]
async fn cuts_can_be_chosen_anew_and_be_made_at_once() {
    let at = CutAt { bytes: 2, direction: Direction::FromClient, ending: CutEnding::Close };
    let (link, broker) = link(Cuts::Each(at)).await;
    for _ in 0..2 {
        let mut client = Raw::open(link.url()).await;
        client.send(b"123").await;
        assert_eq!(client.rest().await, (vec![], false));
        drop(broker.accept().await);
    }
    let mut client = Raw::open(link.url()).await;
    client.send(b"1").await;
    let mut peer = broker.accept().await;
    peer.expect_bytes(1).await;
    // It was to be cut at its second byte.
    link.pass_all();
    client.send(b"23").await;
    assert_eq!(peer.expect_bytes(2).await, b"23");
    assert_eq!(link.open(), 1);
    assert_eq!(link.cut_all(CutEnding::Reset), 1);
    assert_eq!(client.rest().await, (vec![], true));
    assert_eq!((link.connections(), link.cut(), link.open()), (3, 3, 0));
    link.set_cuts(Cuts::Each(at));
    let mut client = Raw::open(link.url()).await;
    client.send(b"123").await;
    client.rest().await;
    assert_eq!(link.cut(), 4);
}

#[tokio::test]
async fn the_link_outlives_its_broker() {
    let (link, broker) = link(Cuts::None).await;
    drop(broker);
    assert_eq!(Raw::open(link.url()).await.rest().await.0, b"");
    let other = MockBroker::listen().await;
    link.set_broker(other.address());
    let mut client = Raw::open(link.url()).await;
    client.send(&raw::connect("c")).await;
    other.accept().await.expect_connect().await;
}

#[test]
fn a_seed_always_cuts_in_the_same_places() {
    let cuts = |seed| {
        let cuts = Cuts::Random { seed, bytes: 10..=20 };
        (0..200).map(|number| cuts.of_connection(number).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(cuts(1), cuts(1));
    assert_ne!(cuts(1), cuts(2));
    // All of it occurs.
    for bytes in 10..=20 {
        assert!(cuts(1).iter().any(|cut| cut.bytes == bytes));
    }
    assert!(cuts(1).iter().all(|cut| (10..=20).contains(&cut.bytes)));
    for ending in [CutEnding::Close, CutEnding::Reset, CutEnding::HalfWrite] {
        for direction in [Direction::FromClient, Direction::FromBroker] {
            assert!(cuts(1).iter().any(|cut| (cut.ending, cut.direction) == (ending, direction)));
        }
    }
    let whole = Cuts::Random { seed: 1, bytes: 0..=u64::MAX };
    assert!(whole.of_connection(0).is_some());
}
