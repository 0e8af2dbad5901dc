"""The contract's wire form: bodies to calls, vectors to bodies.

    bytes -> document -> bodies (types) -+-> parse_* -> EmbeddingsCall | RerankCall | ScoreCall
                      -> item_reader ----+      (items: text, tokens, image, PDF, URL)
    Embedded, Usage -> encode -> answer_chunks | octets

    scores -> rerank_answer | score_answer

Pure functions: no network, no engine, no event loop, no web framework.
"""
