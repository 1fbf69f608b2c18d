//! Multi-exit training of T5 and of its exit classifier.
