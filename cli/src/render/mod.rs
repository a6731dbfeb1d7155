//! From answers to text: tables for people, proto JSON and YAML for programs.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod certificate;
pub(crate) mod charset;
pub(crate) mod config;
pub(crate) mod detail;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod fleet;
pub(crate) mod import;
pub(crate) mod incident;
pub(crate) mod info;
pub(crate) mod json;
pub(crate) mod notes;
pub(crate) mod picture;
pub(crate) mod plan;
pub(crate) mod ports;
pub(crate) mod sheet;
pub(crate) mod status;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod trend;
pub(crate) mod upgrade;
pub(crate) mod walls;
