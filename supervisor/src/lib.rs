//! The supervisor daemon: the tokio shell around [`supervisor_core`], which decides.
//!
//! ```text
//!            openclawctl, scripts                       gateway-worker ── gateway
//!                    │ gRPC                               ▲  Unix socket, one each
//!                    ▼                                    ▼
//!   api ──► handle ──► driver ──── core ────► actions ──► perform
//!    ▲                   │      (decides)                 worker  probe  port  sweep  store
//!    └────── view ◄──────┘ ◄──────────── events ◄─────────┘
//! ```
//!
//! * [`driver`]: the loop; the only caller of core and the only reader of the clock.
//! * [`handle`]: the door to it: commands in, views out.
//! * [`perform`]: the hands. They begin what they are told and report what became of it; they never decide. [`undying`]:
//!   what they cannot kill; [`proc`]: what processes show of themselves.
//! * [`openclaw`]: what is particular to OpenClaw: environment, configuration, directories.
//! * [`spec`], [`fleet`], [`settings`]: what people write, with line and column for every mistake.
//! * [`doctor`]: examines fleet and host, when somebody asks.
//! * [`setup`], [`import`]: make new instances ready to run, and take existing profiles over.
//! * [`runtimes`], [`upgrade`]: versions of OpenClaw side by side, and instances moved from one to another.
//! * [`walls`]: how the kernel's walls around the instances stand; [`user`]: whose they are.
//! * [`api`]: what callers see; [`lineage`]: where they come from; [`pki`]: how those elsewhere are known;
//!   [`events`] and [`logs`]: what they read; [`metrics`]: what Prometheus does, and [`traces`] what OpenTelemetry does.
//! * [`web`]: the dashboard, for a browser; [`alerts`]: what people are told who look at none of this.
//! * [`role`]: what callers may do; [`bindings`]: who has which role; [`audit`]: what they did.
//! * [`logging`]: what the supervisor says about itself; [`typed`]: what it tells people to type; [`custody`]: whose its own
//!   files are.
//! * [`daemon`]: puts the rooms together.
//!
//! A gateway never depends on this process: its worker holds its pipes, its exit status and its process tree.
//! So the supervisor may die at any moment; the next one reads the store, asks every worker, and goes on.

mod alerts;
mod api;
mod audit;
mod bindings;
mod custody;
pub mod daemon;
mod doctor;
mod driver;
pub mod events;
mod figures;
pub mod fleet;
pub mod handle;
mod import;
mod incidents;
mod kernel;
mod ledger;
mod lineage;
pub mod lock;
pub mod logging;
pub mod logs;
mod metrics;
pub mod openclaw;
mod perform;
mod pki;
pub mod problem;
mod proc;
mod recycle;
pub mod registry;
pub mod role;
mod runtimes;
mod seldom;
pub mod settings;
mod setup;
pub mod spec;
mod tool;
mod traces;
mod typed;
mod undying;
mod upgrade;
pub mod user;
mod walls;
pub mod web;
pub mod yaml;
