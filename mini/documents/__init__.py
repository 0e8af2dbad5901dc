"""Synthetic visual documents: pages whose every word is known, and queries that ask for them."""
