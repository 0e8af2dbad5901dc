"""Decoding what strangers send: files of pictures and documents, within bounds."""
