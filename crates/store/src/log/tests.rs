use super::*;
use crate::disk::SimDisk;

#[test]
fn values_come_back() {
    let disk = SimDisk::new();
    let (mut log, _) = Log::open(disk.clone(), LogOptions { segment_bytes: 4096, segments_min: 2 }).unwrap();
    let mut batch = Batch::new();
    for round in 0..100u32 {
        batch.put(1, &round.to_le_bytes(), &[b"value", &[7; 100]]);
        log.commit(&mut batch, round % 3 == 0).unwrap();
    }
    drop(log);
    let (log, report) = Log::open(disk, LogOptions::default()).unwrap();
    assert_eq!((report.live_entries, report.frames, report.damages.len()), (100, 100, 0));
    let mut seen = 0u32;
    log.for_each(|_, key, value| {
        assert_eq!(key, seen.to_le_bytes());
        assert_eq!(value.len(), 105);
        seen += 1;
    })
    .unwrap();
    assert_eq!(seen, 100);
}
