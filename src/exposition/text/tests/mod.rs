//! One test per rule, a table of bodies with the official results, and a comparison with the reference implementation.

mod against_reference;
mod official_cases;
mod rules;
