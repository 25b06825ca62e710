//! Files made in advance, on a disk where another thread makes them.

use std::fs;

use pantala_store::disk::Directory;
use pantala_store::log::{Batch, Log, LogOptions};

#[test]
fn spare_files_that_another_thread_makes_are_used_and_none_is_left_unfinished() {
    const ENTRIES: u32 = 400;
    let options = LogOptions { segment_bytes: 65_536, segments_min: 3 };
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Directory::open(folder.path()).unwrap(), options).unwrap();
    let mut batch = Batch::new();
    let mut prepared = 0;
    for number in 0..ENTRIES {
        batch.put(0, &number.to_be_bytes(), &[&[7; 4096]]);
        // Old ones go meanwhile, and their files are used again under the same kinds of names.
        batch.delete(0, &(number / 2).to_be_bytes());
        log.commit(&mut batch, number % 8 == 0).unwrap();
        let before = log.statistics().spares;
        log.prepare().unwrap();
        prepared += u32::from(log.statistics().spares > before);
        while log.clean(65_536, false).unwrap() {}
    }
    // What is still being made belongs to whoever has the folder: it is waited for.
    drop(log);
    let files = || fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    let spares: Vec<_> = files().filter(|file| file.file_name().to_string_lossy().starts_with("spare.")).collect();
    assert!(spares.iter().all(|spare| spare.metadata().unwrap().len() == 65_536), "{spares:?}");
    assert!(files().all(|file| file.file_name() != "preparing"));
    assert!(prepared > 0, "no file that another thread made was taken in");
    let (log, report) = Log::open(Directory::open(folder.path()).unwrap(), options).unwrap();
    assert_eq!((report.damages, report.torn_bytes), (vec![], 0));
    let mut expected = ENTRIES / 2;
    log.for_each(|_, _, value| {
        assert_eq!(value, [7; 4096]);
        expected -= 1;
    })
    .unwrap();
    assert_eq!(expected, 0);
}
