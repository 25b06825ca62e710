//! The log against a plain map, and what crashes, full disks, errors and damage may and may not do to it.

mod crash;
mod damage;
mod errors;
mod model;
mod readers;
