//! What was believed of the clock, kept for the next start: so that one which finds a clock in 2100
//! doubts it, and throws nothing away by it.

use std::io;
use std::path::Path;

use crate::admission::Believed;
use crate::disk;
use crate::model::Timestamp;

/// Two moments in microseconds since the Unix epoch: now, and since when the clock was not set.
const FILE: &str = "calendar";

/// What the last life left; none that can be read: as at the first start. Blocks.
pub fn read(data: &Path) -> Option<Believed> {
    let text = std::fs::read_to_string(data.join(FILE)).ok()?;
    let mut moments = text.split_whitespace().map(|moment| moment.parse().map(Timestamp));
    let (now, since) = (moments.next()?.ok()?, moments.next()?.ok()?);
    Some(Believed { now, since })
}

/// Keeps it. Blocks.
pub fn write(data: &Path, believed: Believed) -> io::Result<()> {
    let text = format!("{} {}\n", believed.now.0, believed.since.0);
    disk::write_whole(&data.join(FILE), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_what_was_believed_or_nothing() {
        let dir = tempfile::TempDir::new().expect("temporary directory");
        let good = ["1700000000000000 1690000000000000\n", "-1 9223372036854775807"];
        crate::fuzz::each("calendar", &good.map(|text| text.as_bytes().to_vec()), |bytes| {
            std::fs::write(dir.path().join(FILE), bytes).expect("writable");
            let Some(believed) = read(dir.path()) else { return };
            write(dir.path(), believed).expect("writable");
            let again = read(dir.path()).expect("it was written just now");
            assert_eq!((again.now, again.since), (believed.now, believed.since));
        });
    }
}
