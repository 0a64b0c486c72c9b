//! One level of endpoints: those that are equally near, in groups with shares or in the table of a consistent hash.

use std::time::Instant;

use crate::choose::Group;
use crate::load::{Count, Share, shares};
use crate::maglev::Table;
use crate::random::Random;
use crate::ring::Ring;

/// Endpoints that are equally near.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) count: Count,
    pub(crate) share: Share,
    pub(crate) members: Members,
    /// End of the warm-up of the last endpoint. `None`: all are warm.
    pub(crate) warm_until: Option<Instant>,
}

/// Endpoints of a level that may take traffic.
#[derive(Debug)]
pub(crate) enum Members {
    Ring(Ring),
    Maglev(Table),
    /// Groups with their weights, which are more than 0.
    Groups(Vec<(u64, Group)>),
}

impl Members {
    /// Draws a group in proportion to the weights. `None` if no endpoint may take traffic.
    pub(crate) fn group(groups: &[(u64, Group)], random: &mut Random) -> Option<usize> {
        if let [_] = groups {
            return Some(0);
        }
        let total: u64 = groups.iter().map(|(weight, _)| weight).sum();
        let mut left = random.next().checked_rem(total)?;
        groups.iter().position(|(weight, _)| {
            let is_chosen = left < *weight;
            left = left.saturating_sub(*weight);
            is_chosen
        })
    }
}

/// Level of a number below 100. `avoid` holds levels that are used only if no other has traffic, as bits.
pub(crate) fn level(levels: &[Level], percent: u32, avoid: u64) -> Option<usize> {
    if avoid != 0 {
        let is_kept =
            |number: &usize| u32::try_from(*number).ok().and_then(|bit| avoid.checked_shr(bit)).unwrap_or(0) & 1 == 0;
        let kept: Vec<_> = (0..levels.len()).filter(is_kept).collect();
        let counts: Vec<_> = kept.iter().map(|number| levels[*number].count).collect();
        if let Some(at) = position(shares(&counts, 0).iter(), percent) {
            return Some(kept[at]);
        }
    }
    position(levels.iter().map(|level| &level.share), percent)
}

fn position<'a>(shares: impl Iterator<Item = &'a Share>, percent: u32) -> Option<usize> {
    let mut sum = 0;
    shares.into_iter().position(|share| {
        sum += share.percent;
        percent < sum
    })
}
