//! The API as its callers have it: its own clients, over a real socket, before a small world in which every
//! process does at once what it is told.

mod access;
mod changes;
mod client;
mod configs;
mod edges;
mod events;
mod fleets;
mod incidents;
mod insides;
mod instances;
mod loads;
mod logs;
mod pages;
mod system;
mod waits;
mod watches;
mod world;
