//! Blocks of 20 ports: who has which, and which is free.
//!
//! A block is held from the moment its instance is created until it is deleted or moved, and both need the
//! instance to be stopped, which needs proof that nothing of it is alive. So a block is never given twice.

use alloc::collections::BTreeMap;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{denied::Denied, ids::Name};

/// Ports of one block. OpenClaw's guide: "leave 20 ports between gateways".
pub const BLOCK: u16 = 20;

/// First port of the default pool: OpenClaw's own default port, so that `main` is where people look.
pub const DEFAULT_FIRST: u16 = 18_789;

/// Last port of the default pool: the port below the kernel's default ephemeral range (ip(7)).
pub const DEFAULT_LAST: u16 = 32_767;

/// Where a rescue is by OpenClaw's guide: 1,000 above main.
const RESCUE: u16 = 19_789;

/// Ports `base` to `base + 19`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Block {
    /// The first port: the gateway's.
    pub base: u16,
}

impl Block {
    /// The block that begins at `base`, if it fits below 65536.
    #[must_use]
    pub fn at(base: u16) -> Option<Self> {
        base.checked_add(BLOCK - 1).map(|_| Self { base })
    }

    /// Its last port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.base.saturating_add(BLOCK - 1)
    }

    /// Whether the two share a port.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.base <= other.last() && other.base <= self.last()
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.base, self.last())
    }
}

/// The ports that blocks are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Default for Pool {
    fn default() -> Self {
        Self { first: DEFAULT_FIRST, last: DEFAULT_LAST }
    }
}

impl Pool {
    /// Whether the block is wholly inside.
    #[must_use]
    pub fn contains(self, block: Block) -> bool {
        self.first <= block.base && block.last() <= self.last
    }
}

/// Who has which block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    pool: Pool,
    held: BTreeMap<Block, Name>,
}

impl Ports {
    /// No block held yet.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, held: BTreeMap::new() }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// Changes the pool. Held blocks stay, even outside the new one.
    pub fn set_pool(&mut self, pool: Pool) {
        self.pool = pool;
    }

    /// All held blocks, in rising order.
    pub fn held(&self) -> impl Iterator<Item = (Block, &Name)> {
        self.held.iter().map(|(block, name)| (*block, name))
    }

    /// Takes a block for `name`: the wanted one or none, else the customary one, else the first free one.
    pub fn take(&mut self, name: &Name, wanted: Option<u16>) -> Result<Block, Denied> {
        let block = match wanted {
            Some(base) => self.check(name, base)?,
            None => self.choose(name)?,
        };
        self.held.insert(block, name.clone());
        Ok(block)
    }

    /// Takes back a block that a restored record holds, whatever the pool says by now.
    pub fn hold(&mut self, name: &Name, block: Block) {
        self.held.insert(block, name.clone());
    }

    /// Frees the block. Only for an instance of which nothing is alive.
    pub fn free(&mut self, block: Block) {
        self.held.remove(&block);
    }

    /// Whether `name` may have the block at `base`.
    pub fn check(&self, name: &Name, base: u16) -> Result<Block, Denied> {
        let Pool { first, last } = self.pool;
        let wanted = Block { base };
        if Block::at(base).is_none() || !self.pool.contains(wanted) {
            return Err(Denied::PortOutsidePool { name: name.clone(), wanted, first, last });
        }
        match self.meets(wanted).find(|(_, holder)| *holder != name) {
            Some((held, holder)) => {
                Err(Denied::PortOverlap { name: name.clone(), wanted, holder: holder.clone(), held })
            }
            None => Ok(wanted),
        }
    }

    /// The held blocks that share a port with `block`.
    fn meets(&self, block: Block) -> impl Iterator<Item = (Block, &Name)> {
        let from = Block { base: block.base.saturating_sub(BLOCK - 1) };
        let to = Block { base: block.last() };
        self.held.range(from..=to).map(|(held, name)| (*held, name))
    }

    /// `main` and `rescue` get the places where OpenClaw's guide has them; nobody else is given those while
    /// others are free.
    fn choose(&self, name: &Name) -> Result<Block, Denied> {
        let Pool { first, last } = self.pool;
        let customary = match &**name {
            "main" => Some(DEFAULT_FIRST),
            "rescue" => Some(RESCUE),
            _ => None,
        };
        if let Some(block) = customary.and_then(|base| self.check(name, base).ok()) {
            return Ok(block);
        }
        let free = |block: &Block| self.meets(*block).next().is_none();
        let reserved =
            |block: &Block| [DEFAULT_FIRST, RESCUE].iter().any(|base| block.overlaps(Block { base: *base }));
        let mut blocks = (first..=last)
            .step_by(usize::from(BLOCK))
            .filter_map(Block::at)
            .filter(|block| self.pool.contains(*block) && free(block));
        let mut fallback = None;
        blocks
            .find(|block| {
                let spare = !reserved(block);
                if !spare && fallback.is_none() {
                    fallback = Some(*block);
                }
                spare
            })
            .or(fallback)
            .ok_or(Denied::PoolExhausted { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec::Vec};
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn main_and_rescue_get_their_customary_places() {
        let mut ports = Ports::default();
        assert_eq!(ports.take(&name("work"), None).unwrap().base, 18_809);
        assert_eq!(ports.take(&name("main"), None).unwrap().base, 18_789);
        assert_eq!(ports.take(&name("rescue"), None).unwrap().base, 19_789);
        assert_eq!(ports.take(&name("next"), None).unwrap().base, 18_829);
    }

    #[test]
    fn the_customary_places_are_given_away_last() {
        let mut ports = Ports::new(Pool { first: 18_789, last: 18_828 });
        assert_eq!(ports.take(&name("a"), None).unwrap().base, 18_809);
        assert_eq!(ports.take(&name("b"), None).unwrap().base, 18_789);
        assert_eq!(ports.take(&name("c"), None), Err(Denied::PoolExhausted { first: 18_789, last: 18_828 }));
    }

    #[test]
    fn a_wanted_block_that_meets_another_is_refused_by_name() {
        let mut ports = Ports::default();
        ports.take(&name("a"), Some(20_000)).unwrap();
        let refused = ports.take(&name("b"), Some(20_019)).unwrap_err();
        assert_eq!(format!("{refused}"), "ports 20019-20038 of `b` overlap 20000-20019 of `a`");
        assert!(ports.take(&name("b"), Some(20_020)).is_ok());
    }

    proptest! {
        #[test]
        fn held_blocks_never_overlap_and_never_leave_the_pool(
            steps in proptest::collection::vec((0u8..30, proptest::option::of(18_000u16..20_000), any::<bool>()), 1..200),
        ) {
            let mut ports = Ports::new(Pool { first: 18_500, last: 19_500 });
            let mut mine: BTreeMap<Name, Block> = BTreeMap::new();
            for (who, wanted, free) in steps {
                let name = name(&format!("i{who}"));
                if free {
                    if let Some(block) = mine.remove(&name) {
                        ports.free(block);
                    }
                } else if !mine.contains_key(&name) && let Ok(block) = ports.take(&name, wanted) {
                    mine.insert(name, block);
                }
                let held: Vec<_> = ports.held().map(|(block, _)| block).collect();
                prop_assert_eq!(held.len(), mine.len());
                prop_assert!(held.windows(2).all(|pair| !pair[0].overlaps(pair[1])));
                prop_assert!(held.iter().all(|block| ports.pool().contains(*block)));
            }
        }
    }
}
