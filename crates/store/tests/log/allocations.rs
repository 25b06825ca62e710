//! What a commit costs besides the disk.

use pantala_store::disk::{Directory, SimDisk, SimFile};
use pantala_store::log::{Batch, Log, LogOptions, Reader};

#[test]
fn puts_and_deletes_of_a_warm_log_allocate_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Directory::open(folder.path()).unwrap(), LogOptions::default()).unwrap();
    let mut batch = Batch::new();
    let mut round = || {
        for number in 0..500u32 {
            batch.put(1, &number.to_be_bytes(), &[&[1; 100], &[2; 50]]);
            batch.put(1, b"a longer key than fits", &[]);
        }
        log.commit(&mut batch, true).unwrap();
        for number in 0..500u32 {
            batch.delete(1, &number.to_be_bytes());
        }
        log.commit(&mut batch, false).unwrap();
    };
    round();
    round();
    assert_eq!(allocation_counter::measure(round).count_total, 0);
}

#[test]
fn a_log_can_move_to_a_thread_and_readers_can_be_shared() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone>() {}
    is_send::<Log<SimDisk>>();
    is_send::<Log<Directory>>();
    is_send::<Batch>();
    is_shared::<Reader<SimFile>>();
    is_shared::<Reader<std::fs::File>>();
}
