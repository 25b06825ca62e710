//! A disk in memory that fails, fills up and loses power as it is told.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

/// What a disk writes at once, or not at all.
const SECTOR: usize = 512;
/// What the kernel writes back at once, as a rule.
const PAGE: usize = 4096;

/// A disk in memory. A clone is the same disk: dropping a log and opening a clone is what the end of a process is.
///
/// Operations are numbered from 1; each kind has numbers of its own for [`fail_at`](Self::fail_at), and
/// [`cut_at`](Self::cut_at) counts them all. Reads are not counted and never fail.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// An open file of a [`SimDisk`].
#[derive(Debug, Clone)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

/// What can be told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`Disk::create`].
    Create,
    /// [`Disk::rename`] and [`Disk::remove`].
    Rename,
}

/// How often the disk was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SimCounts {
    /// All operations.
    pub operations: u64,
    /// [`DiskFile::write_at`].
    pub writes: u64,
    /// [`DiskFile::sync_data`].
    pub syncs: u64,
    /// [`Disk::create`].
    pub creates: u64,
    /// [`Disk::rename`] and [`Disk::remove`].
    pub renames: u64,
    /// Bytes of all writes.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Inode>,
    /// Names as processes see them.
    names: BTreeMap<String, usize>,
    /// Names as a power cut would leave them. They differ only after the power failed within a change of names.
    names_synced: BTreeMap<String, usize>,
    counts: SimCounts,
    failures: Vec<(Operation, u64, io::ErrorKind)>,
    cut_at: Option<u64>,
    bytes_max: Option<u64>,
    reads_fail: Option<io::ErrorKind>,
    alive: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What processes read.
    bytes: Vec<u8>,
    /// What is on stable storage.
    synced: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<(usize, Vec<u8>)>,
    /// Written before a sync that failed: no later sync brings them down, but they may be there all the same.
    limbo: Vec<(usize, Vec<u8>)>,
}

impl Default for SimDisk {
    fn default() -> Self {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk without limits.
    pub fn new() -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State::default())))
    }

    /// Lets the `nth` call of this kind fail, counted from the beginning. A write that fails has written half; what was
    /// written before a sync that fails is lost to all later syncs, as with Linux.
    pub fn fail_at(&self, operation: Operation, nth: u64, kind: io::ErrorKind) {
        self.state().failures.push((operation, nth, kind));
    }

    /// Lets the power fail in the `nth` operation of any kind: it is half done, and all later ones fail. What is left is
    /// to be had from [`crash`](Self::crash).
    pub fn cut_at(&self, nth: u64) {
        self.state().cut_at = Some(nth);
    }

    /// Allows files of so many bytes together; `None` is no limit.
    pub fn full(&self, bytes_max: Option<u64>) {
        self.state().bytes_max = bytes_max;
    }

    /// Lets all reads fail from now on; `None` ends that.
    pub fn fail_reads(&self, kind: Option<io::ErrorKind>) {
        self.state().reads_fail = kind;
    }

    /// How often the disk was used.
    pub fn counts(&self) -> SimCounts {
        self.state().counts
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.state().used()
    }

    /// The disk as a power cut leaves it: all synced bytes, and of later writes whatever the seed says, sector by sector.
    /// Each sector has what was synced or what one of the later writes left in it.
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut random = SplitMix64(seed);
        // The pure cases are the likely ones on real disks, and a lost page is the one that hurts.
        let manner = random.below(6);
        self.rebuild(&mut random, |random, versions, page_lost| match manner {
            0 => 0,
            1 => versions,
            2 if page_lost => 0,
            2 => versions,
            3 => random.below(2) * versions,
            _ => random.below(versions + 1),
        })
    }

    /// The disk as a power cut leaves it that comes after the first `k` unsynced writes to each file have been done.
    pub fn crash_prefix(&self, k: usize) -> SimDisk {
        let disk = self.rebuild(&mut SplitMix64(k as u64), |_, _, _| 0);
        let (from, mut to) = (self.state(), disk.state());
        for (inode, rebuilt) in from.files.iter().zip(&mut to.files) {
            for (offset, written) in inode.pending.iter().take(k) {
                put(&mut rebuilt.bytes, *offset, written);
                put(&mut rebuilt.synced, *offset, written);
            }
        }
        drop(to);
        disk
    }

    /// The bytes of a file, for tests that look at or damage it.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|inode| state.files[*inode].bytes.clone())
    }

    /// Replaces the bytes of a file on stable storage.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        state.files.push(Inode { synced: bytes.clone(), bytes, ..Inode::default() });
        let inode = state.files.len() - 1;
        state.names.insert(name.into(), inode);
        state.names_synced.insert(name.into(), inode);
    }

    /// `choose` is given how many versions a sector has after the synced one, and whether it is in the page chosen to be
    /// lost; it answers with the number of the version that is left.
    fn rebuild(&self, random: &mut SplitMix64, mut choose: impl FnMut(&mut SplitMix64, u64, bool) -> u64) -> SimDisk {
        let state = self.state();
        let mut files = Vec::with_capacity(state.files.len());
        for inode in &state.files {
            let writes: Vec<&(usize, Vec<u8>)> = inode.limbo.iter().chain(&inode.pending).collect();
            let mut left = inode.synced.clone();
            if left.len() < inode.bytes.len() {
                left.resize(inode.bytes.len(), 0);
            }
            // Sector by sector, which writes touch it.
            let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for (number, (offset, written)) in writes.iter().enumerate() {
                for sector in offset / SECTOR..(offset + written.len()).div_ceil(SECTOR) {
                    touched.entry(sector).or_default().push(number);
                }
            }
            let pages: Vec<usize> = touched.keys().map(|sector| sector * SECTOR / PAGE).collect();
            let page_lost = pages.get(random.below(pages.len().max(1) as u64) as usize).copied();
            for (sector, numbers) in touched {
                let lost = page_lost == Some(sector * SECTOR / PAGE);
                let version = choose(random, numbers.len() as u64, lost) as usize;
                for number in &numbers[..version] {
                    let (offset, written) = writes[*number];
                    let begin = (*offset).max(sector * SECTOR);
                    let end = (offset + written.len()).min((sector + 1) * SECTOR);
                    put(&mut left, begin, &written[begin - offset..end - offset]);
                }
            }
            files.push(Inode { bytes: left.clone(), synced: left, ..Inode::default() });
        }
        let names = if random.below(2) == 0 { &state.names } else { &state.names_synced }.clone();
        let state = State { files, names_synced: names.clone(), names, ..State::default() };
        SimDisk(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn file(&self, inode: usize) -> SimFile {
        SimFile { state: self.0.clone(), inode }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// How an operation goes.
enum Fate {
    Done,
    Fails(io::Error),
    /// The power fails within it.
    Cut,
    /// The power has failed before.
    Dead,
}

fn dead() -> io::Error {
    io::Error::other("the power is off")
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.files[*inode].bytes.len() as u64).sum()
    }

    fn begin(&mut self, operation: Operation) -> Fate {
        self.counts.operations += 1;
        let nth = match operation {
            Operation::Write => &mut self.counts.writes,
            Operation::Sync => &mut self.counts.syncs,
            Operation::Create => &mut self.counts.creates,
            Operation::Rename => &mut self.counts.renames,
        };
        *nth += 1;
        let nth = *nth;
        match self.cut_at {
            Some(cut) if self.counts.operations == cut => return Fate::Cut,
            Some(cut) if self.counts.operations > cut => return Fate::Dead,
            _ => {}
        }
        match self.failures.iter().find(|(what, when, _)| *what == operation && *when == nth) {
            Some((_, _, kind)) => Fate::Fails(io::Error::from(*kind)),
            None => Fate::Done,
        }
    }

    fn change_names(&mut self, change: impl Fn(&mut BTreeMap<String, usize>) -> bool) -> io::Result<()> {
        let not_found = || io::Error::from(io::ErrorKind::NotFound);
        match self.begin(Operation::Rename) {
            Fate::Done => {
                change(&mut self.names_synced);
                if change(&mut self.names) { Ok(()) } else { Err(not_found()) }
            }
            Fate::Cut => {
                change(&mut self.names);
                Err(dead())
            }
            Fate::Fails(error) => Err(error),
            Fate::Dead => Err(dead()),
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<SimFile> {
        let mut state = self.state();
        let fate = state.begin(Operation::Create);
        match fate {
            Fate::Fails(error) => return Err(error),
            Fate::Dead => return Err(dead()),
            Fate::Done | Fate::Cut => {}
        }
        if state.bytes_max.is_some_and(|max| state.used() + bytes > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let cut = matches!(fate, Fate::Cut);
        // A file that the power failed on may be there with any length.
        let bytes = vec![0; if cut { bytes / 2 } else { bytes } as usize];
        state.files.push(Inode { synced: bytes.clone(), bytes, ..Inode::default() });
        let inode = state.files.len() - 1;
        state.names.insert(name.into(), inode);
        if cut {
            return Err(dead());
        }
        state.names_synced.insert(name.into(), inode);
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = self.state().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.state().change_names(|names| match names.remove(from) {
            Some(inode) => {
                names.insert(to.into(), inode);
                true
            }
            None => false,
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().change_names(|names| names.remove(name).is_some())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        Ok(state.bytes_max.map_or(u64::MAX, |max| max.saturating_sub(state.used())))
    }

    fn mark_alive(&self, wall: u64) -> io::Result<()> {
        self.state().alive = Some(wall);
        Ok(())
    }

    fn last_alive(&self) -> Option<u64> {
        self.state().alive
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        let (written, result) = match state.begin(Operation::Write) {
            Fate::Done => (bytes.len(), Ok(())),
            // All of it may reach the disk: a crash takes away what it likes.
            Fate::Cut => (bytes.len(), Err(dead())),
            Fate::Fails(error) => (bytes.len() / 2, Err(error)),
            Fate::Dead => return Err(dead()),
        };
        state.counts.bytes += written as u64;
        let inode = &mut state.files[self.inode];
        put(&mut inode.bytes, offset as usize, &bytes[..written]);
        inode.pending.push((offset as usize, bytes[..written].to_vec()));
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let fate = state.begin(Operation::Sync);
        let inode = &mut state.files[self.inode];
        let pending = std::mem::take(&mut inode.pending);
        match fate {
            Fate::Done => {
                for (offset, written) in &pending {
                    put(&mut inode.synced, *offset, written);
                }
                // What was lost comes down only if it is written again.
                inode.limbo.retain(|(offset, lost)| {
                    let end = offset + lost.len();
                    !pending.iter().any(|(begin, written)| begin <= offset && end <= begin + written.len())
                });
                Ok(())
            }
            Fate::Fails(error) => {
                inode.limbo.extend(pending);
                Err(error)
            }
            Fate::Cut | Fate::Dead => {
                inode.pending = pending;
                Err(dead())
            }
        }
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let state = lock(&self.state);
        if let Some(kind) = state.reads_fail {
            return Err(kind.into());
        }
        let file = &state.files[self.inode].bytes;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        let read = bytes.len().min(file.len() - begin);
        bytes[..read].copy_from_slice(&file[begin..begin + read]);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.state).files[self.inode].bytes.len() as u64)
    }
}

/// A small generator with a good spread; the seed is all there is to it.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_stay_and_others_go_by_sectors() {
        let disk = SimDisk::new();
        let file = disk.create("a", 4096).unwrap();
        file.write_at(0, &[1; 1024]).unwrap();
        file.sync_data().unwrap();
        file.write_at(512, &[2; 1024]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let left = disk.crash(seed).read("a").unwrap();
            assert!(left[..512].iter().all(|byte| *byte == 1));
            assert!(left[512..1024].iter().all(|byte| *byte == left[512]) && left[1536..] == [0; 2560]);
            seen.insert((left[512], left[1024]));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(1, 0), (1, 2), (2, 0), (2, 2)]);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_a_later_one() {
        let disk = SimDisk::new();
        disk.fail_at(Operation::Sync, 1, io::ErrorKind::Other);
        let file = disk.create("a", 512).unwrap();
        file.write_at(0, b"x").unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        let left: Vec<u8> = (0..50).map(|seed| disk.crash(seed).read("a").unwrap()[0]).collect();
        assert!(left.contains(&0) && left.contains(&b'x'));
        file.write_at(0, b"x").unwrap();
        file.sync_data().unwrap();
        assert!((0..50).all(|seed| disk.crash(seed).read("a").unwrap()[0] == b'x'));
    }

    #[test]
    fn a_rename_within_which_the_power_fails_may_be_lost_or_kept() {
        let disk = SimDisk::new();
        disk.create("a", 1).unwrap();
        disk.cut_at(2);
        assert!(disk.rename("a", "b").is_err());
        let kept: Vec<bool> = (0..50).map(|seed| disk.crash(seed).read("b").is_some()).collect();
        assert!(kept.contains(&true) && kept.contains(&false));
    }
}
