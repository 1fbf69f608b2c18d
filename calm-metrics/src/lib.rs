//! Text metrics: BLEU, chrF, ROUGE, token-F1, and the losses made of them.
