//! Eagle's tracker: who has what.

pub mod select;
