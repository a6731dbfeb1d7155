//! The mind under test, through its public face only.

mod adoption;
mod clock;
mod commands;
mod durability;
mod failover;
mod fence;
mod handoff;
mod health;
mod ladder;
mod life;
mod phases;
mod properties;
mod recycle;
mod support;
mod trial;
