//! Where the sessions in memory are found by their public ids, and in which order they are looked at to make room.
//!
//! There is one for each node and it must be small, so it holds the first halves of digests alone: they lie in many short
//! rows, and the id of a session says in which one. Whoever looks for a session asks the table for each of the row. That
//! no two entries of the table of which one is a session have the same first half is seen to by the keeper.

use super::digest::FirstHalf;
use crate::domain::id::SessionId;

/// How many halves a row holds when memory is full.
const ROW_LEN: usize = 32;
/// By how many a row grows.
const ROW_GROWTH: usize = 4;
const ROWS_MAX: usize = 1 << 20;

/// The sessions in memory.
#[derive(Debug)]
pub(super) struct Index {
    rows: Box<[Vec<FirstHalf>]>,
    len: usize,
    /// The row and the place in it that are looked at next.
    hand: (usize, usize),
}

impl Index {
    /// An empty one, made for at most about `sessions_max` sessions.
    pub(super) fn new(sessions_max: usize) -> Self {
        let rows = (sessions_max / ROW_LEN).clamp(1, ROWS_MAX);
        Self { rows: vec![Vec::new(); rows].into_boxed_slice(), len: 0, hand: (0, 0) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = FirstHalf> {
        self.rows.iter().flatten().copied()
    }

    /// Those among which the session is, if it is there at all.
    pub(super) fn candidates(&self, id: SessionId) -> &[FirstHalf] {
        &self.rows[self.row_of(id)]
    }

    /// Adds a session that is not there.
    pub(super) fn insert(&mut self, id: SessionId, half: FirstHalf) {
        let row = self.row_of(id);
        let row = &mut self.rows[row];
        if row.len() == row.capacity() {
            row.reserve_exact(ROW_GROWTH);
        }
        row.push(half);
        self.len += 1;
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, id: SessionId, half: FirstHalf) {
        let row = self.row_of(id);
        let row = &mut self.rows[row];
        if let Some(at) = row.iter().position(|other| *other == half) {
            row.swap_remove(at);
            if row.capacity() - row.len() > 2 * ROW_GROWTH {
                row.shrink_to(row.len() + ROW_GROWTH);
            }
            self.len -= 1;
        }
    }

    /// Takes all of them out.
    pub(super) fn take_all(&mut self) -> Vec<FirstHalf> {
        self.len = 0;
        self.hand = (0, 0);
        self.rows.iter_mut().flat_map(std::mem::take).collect()
    }

    /// The next one to look at for making room. The hand stays there until it is moved on, or the session goes.
    pub(super) fn at_hand(&mut self) -> Option<FirstHalf> {
        if self.len == 0 {
            return None;
        }
        loop {
            if let Some(half) = self.rows[self.hand.0].get(self.hand.1) {
                return Some(*half);
            }
            self.hand = ((self.hand.0 + 1) % self.rows.len(), 0);
        }
    }

    /// Moves the hand on.
    pub(super) fn pass(&mut self) {
        self.hand.1 += 1;
    }

    /// The end of an id is random bits.
    fn row_of(&self, id: SessionId) -> usize {
        let [.., a, b, c, d] = id.as_uuid().into_bytes();
        u32::from_be_bytes([a, b, c, d]) as usize % self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;
    use crate::domain::token::TokenDigest;

    fn id(number: u16) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(u128::from(number)))
    }

    fn half(number: u16) -> FirstHalf {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        FirstHalf::of(&TokenDigest(bytes))
    }

    #[test]
    fn what_went_in_is_found_until_it_is_taken_out() {
        let mut index = Index::new(100);
        (0..200).for_each(|number| index.insert(id(number), half(number)));
        (0..100).for_each(|number| index.remove(id(number), half(number)));
        index.remove(id(7), half(7));
        assert_eq!((index.len(), index.iter().count()), (100, 100));
        for number in 0..200 {
            let found = index.candidates(id(number)).contains(&half(number));
            assert_eq!(found, number >= 100, "{number}");
        }
        assert_eq!(index.take_all().len(), 100);
        assert_eq!((index.len(), index.at_hand()), (0, None));
    }

    #[test]
    fn the_hand_comes_by_all_of_them() {
        let mut index = Index::new(320);
        (0..320).for_each(|number| index.insert(id(number), half(number)));
        let mut seen = BTreeSet::new();
        for _ in 0..320 {
            let half = index.at_hand().expect("there are some");
            seen.insert(half);
            index.pass();
        }
        assert_eq!(seen.len(), 320);
    }
}
