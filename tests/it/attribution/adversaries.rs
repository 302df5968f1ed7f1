//! Adversaries.
