//! Every rule by name, the official answers by table, and the parser against its slow twin.

mod against_reference;
mod official_cases;
mod rules;
