"""The search playground of `polyvec serve --playground`: a page, what it is made of, and the two routes it needs.

The page holds the vectors and ranks by itself; it embeds through `/v1/embeddings` as any client does. So
nothing here computes a vector, and no state of a visitor is kept.
"""
