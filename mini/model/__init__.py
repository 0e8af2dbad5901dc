"""What polyvec-mini is made of: shapes, tokenizer, pixels, and the files of its checkpoint."""
