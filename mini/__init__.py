"""polyvec-mini: a small model in the layout of jina-embeddings-v4 that has really learned.

`documents` and `texts` generate what it is trained on, `model` what it is made of, `training` its
weights, `polyvec-mini` holds them, and `quality` says how good they are. Nothing that polyvec ships
imports this package.
"""
