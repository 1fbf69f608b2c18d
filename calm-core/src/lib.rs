//! Early-exit decoding without a tensor library: backbone trait, confidence measures, policies, decoding loop.
