//! The language as a whole: what each operator and function decides, what is
//! refused and in which words, and laws that hold for all queries.

mod decisions;
mod documents;
mod errors;
mod functions;
mod laws;
