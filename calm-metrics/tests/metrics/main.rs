//! Tests of the public interface: golden values of the Python tools, laws, errors.

mod golden;
mod interface;
mod laws;
