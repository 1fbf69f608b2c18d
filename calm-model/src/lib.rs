//! T5 on libtorch: weights, tokenizer, encoder, multi-exit decoder, K/V cache.
