#![no_std]
//! Soon.
