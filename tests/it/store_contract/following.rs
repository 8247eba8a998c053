//! What a reader who polls the log may rely on, as a pure check: it sees every acknowledged row, in order, and each of
//! them behind whatever had been acknowledged before its write began.

use latchkey::domain::id::{Nonce, Position};
use latchkey::store::LoggedChange;

/// What a writer knows of one write that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Where the answer says that the row is.
    pub position: Position,
    /// What it was stamped with.
    pub nonce: Nonce,
    /// The highest position that anybody had been answered when this write began.
    pub floor: Position,
}

/// Checks what one reader saw, from the first row on, against what the writers were answered.
pub fn check_followed(seen: &[LoggedChange], acknowledged: &[Acknowledged]) -> Result<(), String> {
    for (expected, row) in (1..).zip(seen) {
        if row.position.as_i64() != expected {
            return Err(format!("behind {} came {:?}", expected - 1, row.position));
        }
    }
    if seen.len() != acknowledged.len() {
        return Err(format!("{} rows were seen, {} answered", seen.len(), acknowledged.len()));
    }
    for write in acknowledged {
        let index = usize::try_from(write.position.as_i64() - 1).unwrap_or(usize::MAX);
        match seen.get(index) {
            Some(row) if row.nonce == write.nonce => {}
            Some(_) => return Err(format!("the row at {:?} is another than was answered", write.position)),
            None => return Err(format!("{:?} was answered and never seen", write.position)),
        }
        if write.position <= write.floor {
            let Acknowledged { position, floor, .. } = write;
            return Err(format!("{position:?} began when {floor:?} was answered already"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use latchkey::domain::id::Epoch;
    use latchkey::domain::time::UnixMillis;
    use latchkey::store::LogEntry;

    use super::*;

    fn nonce(number: i64) -> Nonce {
        Nonce(number.to_be_bytes())
    }

    fn rows(positions: &[i64]) -> Vec<LoggedChange> {
        let row = |position: &i64| LoggedChange {
            position: Position::from_i64(*position),
            nonce: nonce(*position),
            entry: LogEntry::EveryoneEnded { epoch: Epoch::FIRST },
            time: UnixMillis::default(),
        };
        positions.iter().map(row).collect()
    }

    fn answers(positions: &[i64]) -> Vec<Acknowledged> {
        let answer = |position: &i64| Acknowledged {
            position: Position::from_i64(*position),
            nonce: nonce(*position),
            floor: Position::ZERO,
        };
        positions.iter().map(answer).collect()
    }

    #[test]
    fn a_reader_who_saw_all_is_content() {
        assert_eq!(check_followed(&rows(&[1, 2, 3]), &answers(&[3, 1, 2])), Ok(()));
        assert_eq!(check_followed(&[], &[]), Ok(()));
    }

    #[test]
    fn a_gap_a_missed_row_a_double_and_a_swap_are_found() {
        // What a sequence does: 2 was handed out before 3, and became visible after the reader had passed it.
        assert!(check_followed(&rows(&[1, 3]), &answers(&[1, 2, 3])).is_err());
        assert!(check_followed(&rows(&[1, 2]), &answers(&[1, 2, 3])).is_err(), "the last was not seen");
        assert!(check_followed(&rows(&[2, 3]), &answers(&[2, 3])).is_err(), "the first is missing");
        assert!(check_followed(&rows(&[1, 1, 2]), &answers(&[1, 1, 2])).is_err());
        assert!(check_followed(&rows(&[1, 2, 3]), &answers(&[1, 2])).is_err(), "a row that nobody wrote");
        assert!(check_followed(&rows(&[2, 1]), &answers(&[1, 2])).is_err());
        let mut reused = rows(&[1, 2]);
        reused[1].nonce = nonce(9);
        assert!(check_followed(&reused, &answers(&[1, 2])).is_err(), "the number holds other content");
    }

    #[test]
    fn a_write_that_sorts_before_an_earlier_answer_is_found() {
        let mut answers = answers(&[1, 2]);
        answers[0].floor = Position::from_i64(2);
        assert!(check_followed(&rows(&[1, 2]), &answers).is_err());
    }
}
